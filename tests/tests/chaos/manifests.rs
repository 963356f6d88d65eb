//! Manifests that are none, and an adapter whose source trickles.

use std::time::Duration;

use anyhow::Result;
use slm_tests::swarm::Folder;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};
use tokio_util::sync::CancellationToken;

/// As dear as rules can be.
pub(crate) const DEAR_ROUTE: &str = "apiVersion: slmswarm.io/v1alpha1
kind: SwarmRoute
metadata:
  name: assistant
spec:
  rules:
    - when: messages.all(a, messages.all(b, messages.all(c, a.role == b.role && b.role == c.role && text.contains('b'))))
      to: {kind: LoraAdapter, name: travel}
    - when: metadata.exists(a, metadata.exists(b, a + b == text))
      to: {kind: LoraAdapter, name: banking}
    - when: text.matches('(a|aa)+$')
      to: {kind: LoraAdapter, name: kitchen}
  fallback: {kind: SlmModel, name: smollm2}
";

/// What a folder may hold by mistake or by malice.
const BROKEN: [&str; 6] = [
    "apiVersion: slmswarm.io/v1alpha1\nkind: SwarmRoute\nmetadata: {name: broken}\nspec:\n  rules:\n    - when: text.exists(c, c == 'a')\n      to: {kind: SlmModel, name: smollm2}\n  fallback: {kind: SlmModel, name: smollm2}\n",
    "apiVersion: slmswarm.io/v1alpha1\nkind: SwarmRoute\nmetadata: {name: broken}\nspec:\n  rules:\n    - when: 'Foo{a: 1}.a == 1'\n      to: {kind: SlmModel, name: smollm2}\n  fallback: {kind: SlmModel, name: smollm2}\n",
    "apiVersion: slmswarm.io/v1alpha1\nkind: SlmModel\nmetadata: {name: broken}\nspec: {source: 5}\n",
    "apiVersion: slmswarm.io/v9\nkind: LoraAdapter\nmetadata: {name: smollm2}\nspec: {}\n",
    "{[&a *a",
    "a: &a [x, x, x, x, x, x, x, x]\nb: &b [*a, *a, *a, *a, *a, *a, *a, *a]\nc: [*b, *b, *b, *b, *b, *b, *b, *b]\n",
];

/// Changes the folder until `stop`; gives the number of changes.
pub(crate) async fn come_and_go(folder: Folder, stop: CancellationToken) -> Result<usize> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let source = format!(
        "apiVersion: slmswarm.io/v1alpha1\nkind: LoraAdapter\nmetadata: {{name: trickle}}\nspec:\n  \
         modelRef: {{name: smollm2}}\n  source: {{uri: 'oci://{}/adapter:1'}}\n",
        listener.local_addr()?
    );
    tokio::spawn(trickle(listener, stop.clone()));
    let mut changes = 0;
    let mut tick = tokio::time::interval(Duration::from_secs(1));
    while !stop.is_cancelled() {
        tick.tick().await;
        match changes % 4 {
            0 => folder.write("trickle", &source)?,
            1 => folder.write("broken", BROKEN[changes / 4 % BROKEN.len()])?,
            2 => folder.remove("broken")?,
            _ => folder.remove("trickle")?,
        }
        changes += 1;
    }
    Ok(changes)
}

/// A registry that sends a byte a second of a manifest of a megabyte.
async fn trickle(listener: TcpListener, stop: CancellationToken) {
    while let Some(Ok((mut connection, _))) = stop.run_until_cancelled(listener.accept()).await {
        let stop = stop.clone();
        tokio::spawn(async move {
            let _ = connection.read(&mut [0; 4096]).await;
            let head = b"HTTP/1.1 200 OK\r\ncontent-length: 1048576\r\ncontent-type: application/vnd.oci.image.manifest.v1+json\r\n\r\n";
            let mut sent = connection.write_all(head).await;
            let mut tick = tokio::time::interval(Duration::from_secs(1));
            while sent.is_ok() && stop.run_until_cancelled(tick.tick()).await.is_some() {
                sent = connection.write_all(b"x").await;
            }
        });
    }
}
