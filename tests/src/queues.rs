//! SQS in this process: queues to send to as the functions do, and to look into as no function can.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use aws_config::SdkConfig;
use payday::queue::Queue;
use payday_local::activity::Activity;
use payday_local::identity::Identities;
use payday_local::queues::Queues;
use payday_local::template;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// The settings of AWS clients that are to find it there.
pub async fn aws_at(origin: String) -> SdkConfig {
    let aws = payday::aws::settings().await.into_builder();
    let credentials = aws_credential_types::Credentials::new("test", "test", None, None, "test");
    let provider = aws_credential_types::provider::SharedCredentialsProvider::new(credentials);
    let region = aws_config::Region::new("eu-central-1");
    aws.endpoint_url(origin).region(region).credentials_provider(provider).build()
}

/// Some queues and their endpoint, which ends with this.
pub struct QueueServer {
    queues: Queues,
    endpoint: JoinHandle<()>,
    aws: SdkConfig,
    place: template::Place,
}

impl QueueServer {
    pub async fn start(names: &[&str]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let origin = format!("http://{}", listener.local_addr().expect("an address"));
        let place = template::Place {
            region: "eu-central-1".to_owned(),
            account: "000000000000".to_owned(),
            stack_name: "test".to_owned(),
            sqs_origin: origin.clone(),
        };
        let queue = |name: &str| template::Queue {
            name: name.to_owned(),
            url: place.queue_url(name),
            arn: place.arn("sqs", name),
            visibility_timeout: Duration::from_secs(30),
            delay: Duration::ZERO,
            retention: Duration::from_secs(86_400),
            max_message_bytes: 1 << 20,
            redrive: None,
        };
        let wiring = template::Wiring {
            functions: BTreeMap::new(),
            queues: names.iter().map(|name| ((*name).to_owned(), queue(name))).collect(),
            event_sources: Vec::new(),
            schedule_groups: Vec::new(),
            schedules: Vec::new(),
            routes: Vec::new(),
        };
        let queues = Queues::new(&wiring, Activity::default());
        let endpoint = queues.serve(listener, Arc::new(Identities::default()));
        let aws = aws_at(origin).await;
        Self { queues, endpoint, aws, place }
    }

    /// How AWS is reached here.
    pub fn aws(&self) -> &SdkConfig {
        &self.aws
    }

    /// A queue as a function has it.
    pub fn client(&self, name: &str) -> Queue {
        Queue::new(&self.aws, self.place.queue_url(name))
    }

    /// Takes out all that is in a queue.
    pub fn taken(&self, name: &str) -> Vec<String> {
        let bodies = self.queues.bodies(name).expect("the queue");
        self.queues.purge(name).expect("the queue");
        bodies
    }
}

impl Drop for QueueServer {
    fn drop(&mut self) {
        self.endpoint.abort();
    }
}
