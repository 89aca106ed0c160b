//! Where Postgres is, as whom it may run, and which folder that user can reach.

use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::unistd::{Uid, User};

use super::PostgresError;

/// The folder of the server's programs.
pub(super) fn programs() -> Result<PathBuf, PostgresError> {
    let mut candidates: Vec<PathBuf> = Vec::new();
    if let Some(path) = std::env::var_os("PATH") {
        candidates.extend(std::env::split_paths(&path));
    }
    // Distributions keep the server out of PATH, one folder for each version: the newest wins.
    let mut versioned: Vec<(u32, PathBuf)> = Vec::new();
    for (folder, prefix, suffix) in [
        ("/usr/lib/postgresql", "", "bin"),
        ("/usr", "pgsql-", "bin"),
        ("/opt/homebrew/opt", "postgresql@", "bin"),
        ("/usr/local/opt", "postgresql@", "bin"),
        ("/Applications/Postgres.app/Contents/Versions", "", "bin"),
    ] {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let version = entry.file_name().to_str().and_then(|name| name.strip_prefix(prefix)?.parse().ok());
            versioned.extend(version.map(|version| (version, entry.path().join(suffix))));
        }
    }
    versioned.sort();
    candidates.extend(versioned.into_iter().rev().map(|(_, path)| path));
    candidates
        .extend(["/opt/homebrew/opt/postgresql/bin", "/usr/local/opt/postgresql/bin", "/usr/local/pgsql/bin"].map(PathBuf::from));
    if let Ok(output) = Command::new("pg_config").arg("--bindir").output() {
        candidates.push(PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()));
    }
    // Links are followed: what belongs to the server lies beside the real program.
    let real = |folder: PathBuf| Some(folder.join("postgres").canonicalize().ok()?.parent()?.to_owned());
    let complete = |folder: &PathBuf| folder.join("postgres").is_file() && folder.join("initdb").is_file();
    candidates
        .into_iter()
        .filter_map(real)
        .find(complete)
        .ok_or_else(|| PostgresError::NotInstalled { command: install_command() })
}

/// The one command that installs Postgres on this machine.
fn install_command() -> &'static str {
    let has = |program: &str| {
        std::env::var_os("PATH").is_some_and(|path| std::env::split_paths(&path).any(|folder| folder.join(program).is_file()))
    };
    match () {
        () if has("apt-get") && Uid::effective().is_root() => "apt-get install -y postgresql",
        () if has("apt-get") => "sudo apt-get install -y postgresql",
        () if has("dnf") => "sudo dnf install -y postgresql-server postgresql-contrib",
        () if has("pacman") => "sudo pacman -S --noconfirm postgresql",
        () if has("apk") => "sudo apk add postgresql postgresql-contrib",
        () if has("brew") => "brew install postgresql@17",
        () => "the package manager of this machine, for the package postgresql",
    }
}

/// The user that the server runs as: another one if we are root, because Postgres refuses root.
#[derive(Debug, Clone)]
pub(super) struct Account {
    pub(super) name: String,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) switch: bool,
}

impl Account {
    pub(super) fn choose() -> Result<Self, PostgresError> {
        let own = Uid::effective();
        if !own.is_root() {
            return Ok(Self {
                name: String::new(),
                uid: own.as_raw(),
                gid: nix::unistd::Gid::effective().as_raw(),
                switch: false,
            });
        }
        for name in ["postgres", "_postgres", "nobody"] {
            if let Ok(Some(user)) = User::from_name(name) {
                return Ok(Self { name: user.name, uid: user.uid.as_raw(), gid: user.gid.as_raw(), switch: true });
            }
        }
        Err(PostgresError::NoUser)
    }

    /// Starts a program as this user, from a folder that it can stand in.
    pub(super) fn command(&self, program: &Path, folder: &Path) -> Command {
        use std::os::unix::process::CommandExt;
        let mut command = Command::new(program);
        command
            .current_dir(folder)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("LC_ALL", "C")
            .env("TZ", "UTC");
        if self.switch {
            command.uid(self.uid).gid(self.gid);
        }
        command
    }

    pub(super) fn own(&self, path: &Path) -> std::io::Result<()> {
        if self.switch { chown(path, Some(self.uid), Some(self.gid)) } else { Ok(()) }
    }

    /// Whether this user can walk to the folder: every folder above it must let it pass.
    fn can_reach(&self, folder: &Path) -> bool {
        !self.switch
            || folder.ancestors().skip(1).filter(|above| !above.as_os_str().is_empty()).all(|above| {
                std::fs::metadata(above).is_ok_and(|metadata| {
                    let mode = metadata.permissions().mode();
                    let bit = match () {
                        () if metadata.uid() == self.uid => 0o100,
                        () if metadata.gid() == self.gid => 0o010,
                        () => 0o001,
                    };
                    mode & bit != 0
                })
            })
    }
}

/// Name of the file that says where the data really is.
const POINTER: &str = "postgres-folder";

/// The folder for the server's files: `<home>/postgres`, or one in a public place if the server's user cannot walk there, as
/// with a clone below `/root`. A pointer in `home` remembers which.
pub(super) fn folder(home: &Path, account: &Account) -> Result<PathBuf, PostgresError> {
    let io = |path: &Path| {
        let path = path.to_owned();
        move |source| PostgresError::Io { path, source }
    };
    std::fs::create_dir_all(home).map_err(io(home))?;
    let home = home.canonicalize().map_err(io(home))?;
    let pointer = home.join(POINTER);
    let folder = match std::fs::read_to_string(&pointer) {
        Ok(folder) if Path::new(folder.trim()).is_dir() && account.can_reach(Path::new(folder.trim())) => {
            PathBuf::from(folder.trim())
        }
        _ if account.can_reach(&home.join("postgres")) => home.join("postgres"),
        _ => {
            let name = format!("payday-{}", uuid::Uuid::new_v4().simple());
            let public = [PathBuf::from("/var/tmp"), std::env::temp_dir(), PathBuf::from("/tmp")];
            let Some(public) = public.iter().find(|public| public.is_dir() && account.can_reach(&public.join(&name))) else {
                return Err(PostgresError::NoFolder { user: account.name.clone() });
            };
            let folder = public.join(name);
            std::fs::write(&pointer, folder.display().to_string()).map_err(io(&pointer))?;
            folder
        }
    };
    std::fs::create_dir_all(&folder).map_err(io(&folder))?;
    account.own(&folder).map_err(io(&folder))?;
    std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o700)).map_err(io(&folder))?;
    Ok(folder)
}

/// Removes the server's files, wherever they are.
pub(super) fn remove(home: &Path) -> std::io::Result<()> {
    let pointer = home.join(POINTER);
    if let Ok(folder) = std::fs::read_to_string(&pointer) {
        let folder = Path::new(folder.trim());
        // Only what `folder` above can have made; the pointer is a file that anybody may have edited.
        if folder.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with("payday-")) && folder.is_dir() {
            std::fs::remove_dir_all(folder)?;
        }
        std::fs::remove_file(&pointer)?;
    }
    match std::fs::remove_dir_all(home.join("postgres")) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
