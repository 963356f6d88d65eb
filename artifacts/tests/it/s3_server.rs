//! The S3 server `versitygw`, as `scripts/setup s3` builds it, and a client that puts objects.

use std::{
    fs,
    net::{SocketAddr, TcpListener},
    process::{Child, Command, Stdio},
};

use object_store::{ObjectStore as _, PutPayload, aws::AmazonS3Builder};
use tokio::net::TcpStream;

use crate::common::{built, until};

pub const BUCKET: &str = "models";
pub const KEYS: (&str, &str) = ("access-key-id", "secret-access-key");

/// A server with a folder of its own and one bucket, which ends with this.
pub struct S3Server {
    pub endpoint: String,
    _dir: tempfile::TempDir,
    child: Child,
}

impl S3Server {
    pub async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join(BUCKET)).unwrap();
        // Free when it was looked at; nobody else on this machine asks for it in the moment until the server does.
        let address: SocketAddr = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let child = Command::new(built("versitygw", "s3"))
            .args(["--port", &address.to_string(), "--access", KEYS.0, "--secret", KEYS.1, "--quiet", "posix"])
            .arg(dir.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut server = Self { endpoint: format!("http://{address}"), _dir: dir, child };
        let connected = async || TcpStream::connect(address).await.is_ok();
        let mut tick = tokio::time::interval(std::time::Duration::from_millis(20));
        while !connected().await {
            tick.tick().await;
            assert!(server.child.try_wait().unwrap().is_none(), "versitygw ended");
        }
        server
    }

    /// Puts an object.
    pub async fn put(&self, key: &str, bytes: Vec<u8>) {
        let store = AmazonS3Builder::new()
            .with_endpoint(&self.endpoint)
            .with_allow_http(true)
            .with_bucket_name(BUCKET)
            .with_access_key_id(KEYS.0)
            .with_secret_access_key(KEYS.1)
            .build()
            .unwrap();
        store.put(&key.into(), PutPayload::from(bytes)).await.unwrap();
    }

    /// Goes away.
    pub async fn stop(&mut self) {
        self.child.kill().unwrap();
        until("versitygw has ended", || self.child.try_wait().unwrap().is_some()).await;
    }
}

impl Drop for S3Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
