//! SQS on one machine: an endpoint for the functions, event source mappings that start them, and a handle for tests.

mod backend;
mod endpoint;
mod event_source;
mod store;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use winterbaume_sqs::{InMemorySqsBackend, SqsService};

use self::backend::Backend;
use self::event_source::Poller;
use self::store::Store;
pub use self::store::{Depth, Fault, NoSuchQueue, Received};
use crate::activity::Activity;
use crate::identity::Identities;
use crate::lambda_host::LambdaHost;
use crate::template::Wiring;

/// Who sent a message, as the event says it.
const SENDER_ID: &str = "AIDAPAYDAYLOCAL";

/// The queues of a stack. Cheap to clone.
#[derive(Clone)]
pub struct Queues {
    store: Arc<Store>,
    activity: Activity,
    dead_letter: Arc<[String]>,
    names: Arc<[String]>,
}

impl Queues {
    pub fn new(wiring: &Wiring, activity: Activity) -> Self {
        let store = Arc::new(Store::new(wiring.queues.values().cloned(), activity.clone()));
        let mut names = store.names();
        names.sort();
        // A queue that nothing reads from only collects what failed.
        let unread = |name: &&String| !wiring.event_sources.iter().any(|source| source.queue == **name);
        let dead_letter = names.iter().filter(unread).cloned().collect();
        Self { store, activity, dead_letter, names: names.into() }
    }

    /// Serves the endpoint until the task is aborted.
    pub fn serve(&self, listener: TcpListener, identities: Arc<Identities>) -> JoinHandle<()> {
        let backend = Backend { store: Arc::clone(&self.store), rest: InMemorySqsBackend::new() };
        let router = endpoint::router(SqsService::with_backend(Arc::new(backend)), Arc::clone(&self.store), identities);
        tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, router).await {
                tracing::error!(%error, "the sqs endpoint stopped");
            }
        })
    }

    /// Starts the event source mappings. `concurrency` says how many of a function may run at once.
    pub fn start_event_sources(
        &self,
        wiring: &Wiring,
        region: &str,
        host: &LambdaHost,
        retry_after: Option<Duration>,
        concurrency: impl Fn(&str) -> usize,
    ) -> Vec<JoinHandle<()>> {
        let poller = |source: &crate::template::EventSource| Poller {
            queue_arn: wiring.queues.get(&source.queue).map(|queue| queue.arn.clone()).unwrap_or_default(),
            region: region.to_owned(),
            concurrency: source.maximum_concurrency.unwrap_or_else(|| concurrency(&source.function)),
            retry_after,
            store: Arc::clone(&self.store),
            host: host.clone(),
            activity: self.activity.clone(),
            source: source.clone(),
        };
        wiring.event_sources.iter().filter(|source| source.enabled).map(|source| poller(source).start()).collect()
    }

    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Queues that no function reads: the dead-letter queues.
    pub fn dead_letter_names(&self) -> &[String] {
        &self.dead_letter
    }

    /// The queue of that name or of that URL or ARN.
    fn name<'a>(&self, queue: &'a str) -> &'a str {
        queue.rsplit(['/', ':']).next().unwrap_or(queue)
    }

    pub fn send(&self, queue: &str, body: &str) -> Result<String, NoSuchQueue> {
        self.store.send(self.name(queue), body, None, HashMap::new()).map(|(id, _)| id)
    }

    pub fn depth(&self, queue: &str) -> Result<Depth, NoSuchQueue> {
        self.store.depth(self.name(queue))
    }

    /// The bodies a queue holds, oldest first, without receiving them.
    pub fn bodies(&self, queue: &str) -> Result<Vec<String>, NoSuchQueue> {
        self.store.bodies(self.name(queue))
    }

    pub fn purge(&self, queue: &str) -> Result<(), NoSuchQueue> {
        self.store.purge(self.name(queue))
    }

    /// Applies the fault to one of the next messages sent to the queue; several given are taken in order.
    pub fn fault(&self, queue: &str, fault: Fault) -> Result<(), NoSuchQueue> {
        self.store.fault(self.name(queue), fault)
    }

    /// Makes everything hidden or delayed visible now, as if its time had passed. Returns how many that were.
    pub fn reveal(&self, queue: &str) -> Result<usize, NoSuchQueue> {
        self.store.reveal(self.name(queue))
    }

    /// How many messages wait or are being worked on, dead letters not counted.
    pub fn open(&self) -> usize {
        let open = |name: &&String| !self.dead_letter.contains(*name);
        self.names.iter().filter(open).filter_map(|name| self.store.len(name).ok()).sum()
    }
}
