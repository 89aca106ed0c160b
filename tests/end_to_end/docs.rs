//! docs/api.md, as a reader pastes it into a shell.

use std::fmt::Write;
use std::process::Stdio;
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, State};
use axum::routing::post;
use payday_local::command::up::VARIABLES;
use payday_local::job::root;
use payday_tests::system::{CRON_SECRET, Expected, JWT_SECRET, Setup, System};
use tokio::process::Command;
use tokio::sync::{mpsc, oneshot};

/// The page takes about fifteen seconds, three of them because Stripe takes its time.
const PATIENCE: Duration = Duration::from_secs(90);

/// What the page's stories come to: what, and what the database says then. Ada is the page's first creator, Bea the second.
const PROMISES: [(&str, &str, &str); 9] = [
    ("Ada is ready", "true", "select ready from payee_facts where payee_id = '00000000-0000-4000-8000-000000000001'"),
    (
        "Ada's withdrawals are paid, each once",
        "paid 2",
        "select string_agg(distinct status, ' '), count(*) from withdrawal_requests where creator_id = '00000000-0000-4000-8000-000000000001'",
    ),
    (
        "the cycles paid what the previews said: the first with the facts that had changed, the last less the debt",
        "2026-04-15 1 6750, 2026-05-15 20 90000, 2026-07-15 1 4500, 2026-08-15 2 9000, 2026-09-15 1 2250",
        "select string_agg(cycle_on || ' ' || items || ' ' || minor, ', ' order by cycle_on) from (
            select r.cycle_on, count(*) as items, sum(i.amount_minor) as minor
            from payout_runs r join payout_batches b on b.run_id = r.id join payout_items i on i.batch_id = b.id
            where r.kind = 'scheduled' group by r.cycle_on) as cycles",
    ),
    ("no debt is left", "0", "select debt from payee_balances where payee_id = '00000000-0000-4000-8000-000000000001'"),
    (
        "payouts were paused once, killed once, and went on after each",
        "kill pause resume resume",
        "select string_agg(replace(action, 'payouts.', ''), ' ' order by action) from audit_log
         where action in ('payouts.kill', 'payouts.pause', 'payouts.resume')",
    ),
    (
        "of those whom the kill switch met nobody was sent anything twice",
        "40 1",
        "select count(*), max(o.attempt) from payout_operations o join payout_items i on i.id = o.item_id
         join payout_batches b on b.id = i.batch_id join payout_runs r on r.id = b.run_id where r.cycle_on = '2026-05-15'",
    ),
    (
        "Bea's money was transferred once, and paid out to the second bank",
        "transfer accepted, payout returned, payout accepted",
        "select string_agg(leg || ' ' || state, ', ' order by o.id) from payout_operations o join payout_items i on i.id = o.item_id
         where i.creator_id = '00000000-0000-4000-8000-000000000002'",
    ),
    ("what no webhook told was made good", "1 1 done", "select events_missed, mended, stage from reconciliations"),
    ("a person owns what cannot be", "account_gone ignored finance@example.com", "select kind, state, owner from discrepancies"),
];

/// What stands between the page and a shell that stops at the first answer that the page does not announce, with a `cargo` that
/// asks the test to fire schedules.
const SHELL: &str = r#"set -euo pipefail
curl() { command curl -sS --fail-with-body "$@"; }
cargo() { command curl -sS --fail-with-body -X POST "$FIRE/$3"; }
refused() {
  local wanted=$1 got
  got=$(command curl -sS -o /dev/null -w '%{http_code}' "${@:3}")
  [ "$got" = "$wanted" ] || { echo "$got instead of $wanted: ${*:3}" >&2; exit 1; }
}
"#;

/// The page's blocks for a shell, one after the other. A line that announces a refusal, like `# 409`, has to be refused so.
fn script(page: &str) -> String {
    let mut script = SHELL.to_owned();
    let mut inside = false;
    for line in page.lines() {
        match line {
            "```sh" => inside = true,
            "```" => inside = false,
            line if inside => {
                let said = line.rsplit_once("# ").map_or("", |(_, said)| said).split(' ').next().unwrap_or_default();
                match said.parse::<u16>() {
                    Ok(status @ 400..=599) => {
                        assert!(line.starts_with("curl "), "only a curl of one line can be refused: {line}");
                        writeln!(script, "refused {status} {line}").expect("a string");
                    }
                    _ => writeln!(script, "{line}").expect("a string"),
                }
            }
            _ => {}
        }
    }
    script
}

fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}

type Asked = (String, oneshot::Sender<()>);

async fn fire(State(asked): State<mpsc::Sender<Asked>>, Path(name): Path<String>) {
    let (done, is_done) = oneshot::channel();
    asked.send((name, done)).await.expect("the test listens");
    is_done.await.expect("fired");
}

/// As `cargo payday fire` does. A sweep brings back what was queued a moment ago, which else it does a minute later.
async fn fired(system: &System, name: &str) {
    system.idle().await;
    let job = name.strip_prefix("job-").unwrap_or_else(|| panic!("the page fires {name}"));
    system.job(job).await;
    system.idle().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_about_the_api_does_what_it_says_from_top_to_bottom() {
    let page = std::fs::read_to_string(root().join("docs/api.md")).expect("the page");
    let system = Setup::of(0).funds(0).setting("CHUNK_SIZE", 25).setting("HOLD_DAYS", 0).start().await;
    let (asks, mut asked) = mpsc::channel::<Asked>(1);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let at = format!("http://{}", listener.local_addr().expect("an address"));
    let server =
        tokio::spawn(async move { axum::serve(listener, Router::new().route("/{name}", post(fire)).with_state(asks)).await });
    let folder = tempfile::tempdir().expect("a folder");
    let (database, stripe) = (system.database.url(), system.double.base_url());
    let values = [&system.stack.http_url, CRON_SECRET, JWT_SECRET, &stripe, &database];
    let trace = folder.path().join("trace");
    let written = std::fs::File::create(&trace).expect("a file");
    let shell = Command::new("bash")
        .args(["-xc", &script(&page)])
        .envs(VARIABLES.into_iter().zip(values))
        .env("FIRE", at)
        .current_dir(folder.path())
        .stdin(Stdio::null())
        .stdout(written.try_clone().expect("the same file"))
        .stderr(written)
        .kill_on_drop(true)
        .status();
    let shell = tokio::time::timeout(PATIENCE, shell);
    tokio::pin!(shell);
    let ended = loop {
        tokio::select! {
            ended = &mut shell => break ended,
            Some((name, done)) = asked.recv() => {
                fired(&system, &name).await;
                done.send(()).expect("the page waits");
            }
        }
    };
    server.abort();
    let done = matches!(&ended, Ok(Ok(status)) if status.success());
    let trace = std::fs::read_to_string(trace).unwrap_or_default();
    assert!(done, "{ended:?}\n{}", last_lines(&trace));

    for (what, expected, statement) in PROMISES {
        assert_eq!(system.database.row(statement).await, expected, "{what}");
    }
    let gone = system.database.rows("select account from discrepancies").await;
    system.ends_with("in_transit=1 paid=28", &Expected { gone, ..Expected::default() }).await;
}
