//! Sees to it that no child outlives this process, however it ends.
//!
//! A clean end stops the children one by one. A `kill -9` leaves no time for that, so a shell stands by: it waits for the end
//! of a pipe whose other end only this process holds, which the kernel closes whatever happens, and then ends what it was told
//! to end. The parent-death signal of Linux would need unsafe code or a helper binary, and does not exist elsewhere.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

pub struct Reaper {
    shell: Child,
}

impl Reaper {
    /// A reaper that leads a process group and kills all of it. Children join with `process_group(reaper.group())`; being in
    /// a group of their own also keeps a Ctrl-C in the terminal from reaching them before the runtime has.
    pub fn of_group() -> io::Result<Self> {
        Self::start("read -r line; kill -KILL 0")
    }

    /// A reaper that sends one process a signal, like `INT`.
    pub fn of_process(pid: u32, signal: &str) -> io::Result<Self> {
        Self::start(&format!("read -r line; kill -{signal} {pid}"))
    }

    fn start(script: &str) -> io::Result<Self> {
        let shell = Command::new("/bin/sh")
            .args(["-c", script])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()?;
        Ok(Self { shell })
    }

    pub fn group(&self) -> i32 {
        i32::try_from(self.shell.id()).unwrap_or(0)
    }

    /// Ends the reaper without its deed: what it watched has ended already.
    pub fn dismiss(mut self) {
        let _ = self.shell.kill();
        let _ = self.shell.wait();
    }
}

impl Drop for Reaper {
    fn drop(&mut self) {
        drop(self.shell.stdin.take());
        let _ = self.shell.wait();
    }
}
