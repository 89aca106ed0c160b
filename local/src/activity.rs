//! Knows whether anything runs, and wakes whoever waits for that to change. It is what makes waiting without sleeping possible.

use std::sync::Arc;

use tokio::sync::watch;

/// How many things run. Cloned freely; all clones count together.
#[derive(Clone)]
pub struct Activity(Arc<watch::Sender<usize>>);

/// Something that runs until this is dropped.
pub struct Running(Activity);

impl Default for Activity {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(0)))
    }
}

impl Activity {
    pub fn begin(&self) -> Running {
        self.0.send_modify(|running| *running += 1);
        Running(self.clone())
    }

    /// Something changed that somebody may wait for.
    pub fn changed(&self) {
        self.0.send_modify(|_| {});
    }

    pub fn running(&self) -> usize {
        *self.0.borrow()
    }

    /// Returns once `reached` holds. It is asked after every change, and no change is missed.
    pub async fn wait_until(&self, mut reached: impl FnMut() -> bool) {
        let mut changes = self.0.subscribe();
        while !reached() {
            // The sender lives as long as this clone of it.
            if changes.changed().await.is_err() {
                return;
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.0.send_modify(|running| *running -= 1);
    }
}
