//! A web server for the archives of adapters, there until they have been fetched.

use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::{JoinHandle, JoinSet},
};

/// One that listens; dropping it ends it.
#[derive(Debug)]
pub struct Archives {
    address: SocketAddr,
    digests: Vec<String>,
    /// Whether those who ask get an answer.
    answering: watch::Sender<bool>,
    asked: watch::Sender<usize>,
    serving: JoinHandle<()>,
}

impl Archives {
    /// Serves an archive of each of those folders.
    ///
    /// # Errors
    /// A folder cannot be read, or there is no port.
    pub async fn serve(folders: &[impl AsRef<Path>]) -> Result<Self> {
        let archives = folders.iter().map(|folder| archive(folder.as_ref())).collect::<Result<Vec<_>>>()?;
        let digests = archives.iter().map(|bytes| format!("sha256:{}", hex::encode(Sha256::digest(bytes)))).collect();
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let (answering, asked) = (watch::Sender::new(true), watch::Sender::new(0));
        let (answers, counted, archives) = (answering.subscribe(), asked.clone(), Arc::new(archives));
        let serving = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                counted.send_modify(|asked| *asked += 1);
                let (mut answers, archives) = (answers.clone(), archives.clone());
                connections.spawn(async move {
                    // Who gets less than was said asks again.
                    let _ = answers.wait_for(|answering| *answering).await;
                    let _ = answer(stream, &archives).await;
                });
            }
        });
        Ok(Self { address, digests, answering, asked, serving })
    }

    /// From now on nobody gets an answer, or everybody does who waits for one.
    pub fn set_answering(&self, answering: bool) {
        self.answering.send_replace(answering);
    }

    /// Waits until it was asked so many times.
    ///
    /// # Errors
    /// It is not for long.
    pub async fn asked(&self, times: usize) -> Result<()> {
        let mut asked = self.asked.subscribe();
        let waited = tokio::time::timeout(Duration::from_secs(30), asked.wait_for(|asked| *asked >= times)).await;
        waited.with_context(|| format!("not asked {times} times"))??;
        Ok(())
    }

    /// Path of archive number `index`, and its digest.
    #[must_use]
    pub fn source(&self, index: usize) -> (String, String) {
        (format!("http://{}/{index}.tar", self.address), self.digests[index].clone())
    }
}

impl Drop for Archives {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

fn archive(folder: &Path) -> Result<Vec<u8>> {
    let mut archive = tar::Builder::new(Vec::new());
    archive.append_dir_all("adapter", folder).with_context(|| folder.display().to_string())?;
    Ok(archive.into_inner()?)
}

async fn answer(mut stream: TcpStream, archives: &[Vec<u8>]) -> Result<()> {
    let mut lines = BufReader::new(&mut stream).lines();
    let asked = lines.next_line().await?.context("no request")?;
    while lines.next_line().await?.is_some_and(|line| !line.is_empty()) {}
    let number = asked.strip_prefix("GET /").and_then(|rest| rest.split_once(".tar "));
    let found = number.and_then(|(number, _)| archives.get(number.parse::<usize>().ok()?));
    let (status, body) = found.map_or(("404 Not Found", [].as_slice()), |bytes| ("200 OK", bytes));
    let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(body).await?;
    Ok(stream.shutdown().await?)
}
