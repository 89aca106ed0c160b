//! What a cold start costs: each function's process from its start to its first request for an event, its memory after one event,
//! its size; and beside them the same of a plain Node handler, started by the same host.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::{Map, Value as Json, json};

use super::figures::{megabytes, millis, percentile, ratio};
use super::rig::{Rig, broken};
use crate::activity::Activity;
use crate::console::note;
use crate::job::Failure;
use crate::lambda_host::{Counters, HostOptions, LambdaHost, Logs};
use crate::stripe_double::Rates;
use crate::template::{Asynchronous, Function};

/// Starts of each.
const STARTS: usize = 15;
const AIM_INIT: Duration = Duration::from_millis(30);
const AIM_RSS: u64 = 32_000_000;
const AIM_SIZE: u64 = 16_000_000;

pub async fn measure(rig: &Rig) -> Result<Json, Failure> {
    note("cold: starting each function, and Node");
    let loaded = rig.database("cold", 1, 1).await?;
    let double = super::cycle::start_double(0, Rates::unlimited()).await?;
    let stack = rig.stack(&loaded.url, &double, &[]).await?;
    let mut first_answers = BTreeMap::new();
    let started = async {
        for name in stack.wiring.functions.keys() {
            let path = rig.repository.join("tests/events").join(format!("{name}.json"));
            let event: Json = serde_json::from_slice(&std::fs::read(&path).map_err(broken)?).map_err(broken)?;
            for _ in 0..STARTS {
                stack.lambda.kill(name);
                let began = Instant::now();
                // Whether it likes the event does not matter here.
                let _ = stack.invoke(name, event.clone()).await;
                first_answers.entry(name.clone()).or_insert_with(Vec::new).push(began.elapsed());
            }
        }
        Ok::<_, Failure>(stack.lambda.counters())
    }
    .await;
    stack.shutdown().await;
    let counters = started?;

    let sizes = rig.sizes()?;
    let node = node(rig).await?;
    let node_init = node.as_ref().map(|node| middle(&node.inits));
    let mut functions = Map::new();
    let (mut quick, mut small, mut light) = (true, true, true);
    for (name, of) in &counters {
        let (init, size, rss) = (middle(&of.inits), sizes.get(name).copied().unwrap_or(0), of.max_rss_kb * 1024);
        quick &= init <= AIM_INIT;
        small &= size <= AIM_SIZE;
        light &= rss <= AIM_RSS;
        let mut figures = described(of);
        figures["first_answer_ms"] = millis(middle(first_answers.get(name).map_or(&[], Vec::as_slice))).into();
        figures["size_mb"] = megabytes(size).into();
        if let Some(node) = node_init {
            figures["init_times_node"] = ratio(super::figures::micros(init), super::figures::micros(node)).into();
        }
        functions.insert(name.clone(), figures);
    }
    Ok(json!({
        "what": "from the start of the process to its first request for an event; memory after one event",
        "starts_of_each": STARTS,
        "functions": functions,
        "node": node.as_ref().map_or_else(|| json!("node is not installed"), described),
        "aims": {
            "init_at_most_30_ms": { "holds": quick },
            "memory_at_most_32_mb": { "holds": light },
            "size_at_most_16_mb": { "holds": small },
        },
    }))
}

fn middle(times: &[Duration]) -> Duration {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    percentile(&sorted, 50)
}

fn described(of: &Counters) -> Json {
    json!({
        "init_ms": millis(middle(&of.inits)),
        "init_ms_fastest": millis(of.inits.iter().min().copied().unwrap_or_default()),
        "init_ms_slowest": millis(of.inits.iter().max().copied().unwrap_or_default()),
        "max_rss_mb": megabytes(of.max_rss_kb * 1024),
    })
}

/// A Node handler under the same host, if there is a Node.
async fn node(rig: &Rig) -> Result<Option<Counters>, Failure> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let Some(node) = std::env::split_paths(&path).map(|folder| folder.join("node")).find(|path| path.is_file()) else {
        return Ok(None);
    };
    const NAME: &str = "node-handler";
    let folder = rig.folder.join("node");
    std::fs::create_dir_all(&folder).map_err(broken)?;
    let script: PathBuf = folder.join(NAME);
    std::fs::write(&script, format!("#!{}\n{}", node.display(), include_str!("node_handler.js"))).map_err(broken)?;
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).map_err(broken)?;
    let function = Function {
        name: NAME.to_owned(),
        logical_id: "Node".to_owned(),
        arn: "arn:aws:lambda:us-east-1:123456789012:function:node".to_owned(),
        timeout: Duration::from_secs(30),
        memory_mb: 128,
        environment: BTreeMap::new(),
        reserved_concurrency: None,
        asynchronous: Asynchronous { retries: 0, max_age: Duration::from_secs(60), on_failure_queue: None },
        statements: Vec::new(),
    };
    let options =
        HostOptions { bin_dir: folder.clone(), logs: Logs { folder: folder.clone(), echo: false }, default_concurrency: 1 };
    let host = LambdaHost::start(vec![(function, BTreeMap::new(), None)], options, Activity::default()).await.map_err(broken)?;
    for _ in 0..STARTS {
        host.kill(NAME);
        host.invoke(NAME, &json!({})).await.map_err(broken)?;
    }
    let counters = host.counters().remove(NAME).unwrap_or_default();
    host.shutdown().await;
    Ok(Some(counters))
}
