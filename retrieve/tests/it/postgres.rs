//! A real PostgreSQL with pgvector, on a free port of loopback, gone with its test.

use std::{
    env, fs,
    io::{BufRead as _, BufReader},
    net::TcpListener,
    os::unix::{fs::PermissionsExt as _, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Child, ChildStderr, Command, Stdio},
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use tempfile::TempDir;

/// `nobody`: PostgreSQL does not run as root.
const NOBODY: u32 = 65534;
const LIMIT: Duration = Duration::from_secs(60);

/// A server with one database, `postgres`.
pub(crate) struct Postgres {
    folder: TempDir,
    server: Option<Child>,
    port: u16,
}

/// Where `scripts/setup pgvector` puts it. Tests print how to have it, and end, where it is not.
pub(crate) fn installed() -> Option<PathBuf> {
    let home = || env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache/slm-swarm"));
    let cache = env::var_os("SLM_CACHE_DIR").map(PathBuf::from).or_else(home)?;
    let folder = cache.join("pgvector");
    if folder.join("bin/postgres").exists() {
        return Some(folder);
    }
    println!("not run: there is no PostgreSQL with pgvector in {}; run `scripts/setup pgvector`", folder.display());
    None
}

impl Postgres {
    pub(crate) fn start(installed: &Path) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        // Whoever runs it must be able to read its programs, which the cache of root may not allow.
        let copied = Command::new("cp").arg("-r").arg(installed).arg(folder.path().join("pg")).status();
        assert!(copied.expect("cp").success());
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).expect("permissions");
        let mut own = Self { folder, server: None, port: 0 };
        let password = own.folder.path().join("password");
        fs::write(&password, "s3cret\n").expect("a file");
        fs::set_permissions(&password, fs::Permissions::from_mode(0o644)).expect("permissions");
        let made = own
            .command("initdb")
            .args(["--username=postgres", "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-sync"])
            .arg("--pgdata")
            .arg(own.data())
            .arg("--pwfile")
            .arg(&password)
            .output()
            .expect("initdb");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        own.port = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a port").port();
        own.resume();
        own
    }

    /// Starts it, on the port that it had before; again while processes of a server that was killed still have its memory.
    pub(crate) fn resume(&mut self) {
        let begun = Instant::now();
        loop {
            let server = self
                .command("postgres")
                .arg("-D")
                .arg(self.data())
                .args(["-h", "127.0.0.1", "-p", &self.port.to_string(), "-k", "", "-F"])
                .stderr(Stdio::piped())
                .spawn();
            let mut server = server.expect("a server");
            let log = lines(server.stderr.take().expect("its log"));
            let mut said = String::new();
            loop {
                match log.recv_timeout(LIMIT.saturating_sub(begun.elapsed())) {
                    Ok(line) if line.contains("ready to accept connections") => {
                        self.server = Some(server);
                        return;
                    }
                    Ok(line) => said += &(line + "\n"),
                    // It has ended.
                    Err(RecvTimeoutError::Disconnected) => break,
                    Err(RecvTimeoutError::Timeout) => panic!("not ready after {LIMIT:?}: {said}"),
                }
            }
            server.wait().expect("a server");
            assert!(begun.elapsed() < LIMIT, "{said}");
        }
    }

    /// Ends it at once, as a crash does.
    pub(crate) fn kill(&mut self) {
        if let Some(mut server) = self.server.take() {
            let _ = server.kill();
            let _ = server.wait();
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/postgres", self.port)
    }

    /// A file of Secrets with its password, in the Secret `store`.
    pub(crate) fn secrets(&self) -> PathBuf {
        let path = self.folder.path().join("secrets.yaml");
        let text = format!(
            "kind: Secret\nmetadata: {{name: store, annotations: {{slmswarm.io/hosts: 'http://127.0.0.1:{}'}}}}\n\
             stringData: {{password: s3cret}}\n",
            self.port
        );
        fs::write(&path, text).expect("a file");
        path
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.folder.path().join("pg/bin").join(program));
        command.current_dir(self.folder.path()).env_clear().stdin(Stdio::null()).stdout(Stdio::null());
        command.env("LD_LIBRARY_PATH", self.folder.path().join("pg/lib"));
        if fs::read_dir("/root").is_ok() {
            command.uid(NOBODY).gid(NOBODY);
        }
        command
    }
}

/// The lines of a server's log, read to their end whether somebody listens or not: it must not wait for a reader.
fn lines(log: ChildStderr) -> Receiver<String> {
    let (sender, lines) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(log).lines().map_while(Result::ok) {
            let _ = sender.send(line);
        }
    });
    lines
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.kill();
    }
}
