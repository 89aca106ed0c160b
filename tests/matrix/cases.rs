//! One case is a story and where it is struck. Cases are played side by side, each in a world of its own.

use std::fmt;
use std::panic::AssertUnwindSafe;
use std::str::FromStr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use payday::boundary::Boundary;
use payday::boundary::faults::{Plan, Strike};

use super::machine::{Machine, Place};
use super::stories::{Story, end_of};

/// Cases under way at once: they also wait for Postgres.
const AT_ONCE: usize = 4;
const REPLAY: &str = "PAYDAY_MATRIX";

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Case {
    pub story: Story,
    pub strikes: Vec<Strike>,
}

/// `a cycle / claim chunk#1: killed after / send payout#1: error`
impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.story.name())?;
        self.strikes.iter().try_for_each(|strike| write!(f, " / {strike}"))
    }
}

impl FromStr for Case {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts = text.split(" / ");
        let name = parts.next().unwrap_or_default();
        let story =
            Story::ALL.into_iter().find(|story| story.name() == name).ok_or_else(|| format!("there is no story {name:?}"))?;
        Ok(Self { story, strikes: parts.map(str::parse).collect::<Result<_, _>>()? })
    }
}

/// How a case ended.
pub struct Ended {
    pub case: Case,
    pub crossed: Vec<Boundary>,
    /// Strikes that met nothing, because the ones before changed the story's way.
    pub missed: usize,
    pub breach: Option<String>,
}

/// The one case that the environment asks for.
pub fn replayed() -> Option<Case> {
    let asked = std::env::var(REPLAY).ok()?;
    Some(asked.parse().unwrap_or_else(|wrong| panic!("{REPLAY}: {wrong}")))
}

/// Plays all cases, some at a time.
pub fn play(cases: Vec<Case>) -> Vec<Ended> {
    let next = AtomicUsize::new(0);
    let ended = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE.min(cases.len()) {
            scope.spawn(|| {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
                runtime.block_on(async {
                    let mut place = None;
                    while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                        let end = Box::pin(play_one(case, &mut place)).await;
                        ended.lock().expect("nobody panics with it").push(end);
                    }
                });
            });
        }
    });
    ended.into_inner().expect("nobody panics with it")
}

/// The place is the next case's too, unless this one broke in it.
async fn play_one(case: &Case, place: &mut Option<Place>) -> Ended {
    let plan = Plan::new(case.strikes.iter().copied());
    let mine = match place.take() {
        Some(place) => place,
        None => Place::new().await,
    };
    let played = async {
        mine.renew().await;
        let mut machine = Machine::new(mine, plan.clone(), case.story.chunk_size()).await;
        Box::pin(case.story.happens(&mut machine)).await;
        case.story.audit(&machine).await;
        machine.audit_messages();
        assert_eq!(end_of(&machine).await, case.story.end());
        machine.leave().await
    };
    let breach = match futures::FutureExt::catch_unwind(AssertUnwindSafe(played)).await {
        Ok(mine) => {
            *place = Some(mine);
            None
        }
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            Some(text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default())
        }
    };
    Ended { case: case.clone(), crossed: plan.crossed(), missed: plan.left(), breach }
}

/// Fails if a case did, saying how to play it again.
pub fn report(ended: &[Ended]) {
    let mut broken = Vec::new();
    for it in ended {
        let missed = (it.case.strikes.len() == 1 && it.missed > 0).then(|| "the strike met nothing".to_owned());
        if let Some(breach) = it.breach.clone().or(missed) {
            broken.push(format!(
                "{breach}\n  {REPLAY}=\"{}\" cargo test -p payday-tests --test matrix whatever_goes_wrong_at",
                it.case
            ));
        }
    }
    eprintln!("{} cases played, {} broken", ended.len(), broken.len());
    assert!(broken.is_empty(), "{}", broken.join("\n\n"));
}
