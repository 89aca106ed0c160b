//! PgBouncer in transaction mode, as Supabase's pooler is, in front of a test's database.

use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::unistd::{Uid, User};
use payday_local::reaper::Reaper;
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, Connection, PgConnection};

use crate::database::Database;

/// Connections to Postgres that all clients share.
pub const BACKENDS: u32 = 3;

/// A running PgBouncer. It ends when this is dropped, or when this process does, however that ends.
pub struct Pooler {
    /// Where the database is reached through it.
    pub url: String,
    child: std::process::Child,
    _reaper: Reaper,
    folder: PathBuf,
}

impl Drop for Pooler {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

impl Pooler {
    pub async fn start(database: &Database) -> Self {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let program = std::env::split_paths(&path)
            .chain(["/usr/sbin".into(), "/usr/local/sbin".into()])
            .map(|folder| folder.join("pgbouncer"))
            .find(|program| program.is_file())
            .expect("PgBouncer is not installed on this machine. Install it with: apt-get install -y pgbouncer");
        let target: PgConnectOptions = database.url().parse().expect("an address");
        let target = target.to_url_lossy();
        let port = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port").local_addr().expect("an address").port();
        // Where also another user can walk to.
        let folder = std::env::temp_dir().join(format!("payday-pooler-{}", uuid::Uuid::new_v4().simple()));
        std::fs::create_dir(&folder).expect("a folder");
        let settings = format!(
            "[databases]\n* = host=127.0.0.1 port={} user={} password={}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n\
             auth_type = any\npool_mode = transaction\ndefault_pool_size = {BACKENDS}\nmax_client_conn = 100\nignore_startup_parameters = extra_float_digits\nserver_login_retry = 1\n",
            database.port(),
            target.username(),
            target.password().unwrap_or_default(),
        );
        let file = folder.join("pgbouncer.ini");
        let mut opened = std::fs::File::options().write(true).create_new(true).mode(0o600).open(&file).expect("a file");
        opened.write_all(settings.as_bytes()).expect("written");
        let mut command = Command::new(program);
        command
            .arg("-q")
            .arg(&file)
            .current_dir(&folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0);
        // It refuses to run as root, as Postgres does.
        if Uid::effective().is_root() {
            let user = ["postgres", "_postgres", "nobody"].into_iter().find_map(|name| User::from_name(name).ok().flatten());
            let user = user.expect("a user to run PgBouncer as");
            for path in [&folder, &file] {
                chown(path, Some(user.uid.as_raw()), Some(user.gid.as_raw())).expect("given away");
            }
            command.uid(user.uid.as_raw()).gid(user.gid.as_raw());
        }
        let child = command.spawn().expect("PgBouncer starts");
        let reaper = Reaper::of_process(child.id(), "KILL").expect("a reaper");
        let url = format!("postgres://anyone@127.0.0.1:{port}/{}", database.name);
        let pooler = Self { url, child, _reaper: reaper, folder };
        let until = Instant::now() + Duration::from_secs(10);
        while let Err(error) = PgConnection::connect(&pooler.url).await {
            assert!(Instant::now() < until, "PgBouncer does not answer: {error}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        pooler
    }
}
