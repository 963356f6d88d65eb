//! What callers, sources and files can do to a worker, and what it does about it: one worker in this process, on the tiny
//! model of the parity suite.

mod worker_bounds {
    mod answers;
    mod loads;
    mod tenants;

    use anyhow::Result;
    use slm_proto::v1::{self, generation_client::GenerationClient};
    use slm_tests::tiny::{self, Worker, greedy};
    use slm_worker::WorkerConfig;
    use tonic::{
        Streaming,
        transport::{Channel, Endpoint},
    };

    const TOKENS: u32 = 1000;
    /// The window of a stream that is full at once.
    const SMALL: u32 = 1 << 10;

    /// A connection with windows of so many bytes, of each stream and of all together.
    async fn connect(worker: &Worker, stream: u32, all: u32) -> Result<GenerationClient<Channel>> {
        let endpoint = Endpoint::from_shared(worker.url.clone())?;
        let endpoint = endpoint.initial_stream_window_size(stream).initial_connection_window_size(all);
        Ok(GenerationClient::new(endpoint.connect().await?))
    }

    /// A worker of the tiny model whose context is long enough for answers that no connection takes ahead of their readers.
    async fn start(change: impl FnOnce(&mut WorkerConfig)) -> Result<Worker> {
        let mut made = Ok(());
        let worker = Worker::start(|config| {
            match tiny::with_context(2048, &config.artifacts.dir) {
                Ok(source) => config.source = source,
                Err(error) => made = Err(error),
            }
            change(config);
        });
        let worker = worker.await?;
        made?;
        Ok(worker)
    }

    /// An answer of some 190 KiB: more than HTTP/2's first window of 64 KiB and what the server takes ahead of it, 32 KiB and
    /// a message.
    fn large() -> v1::GenerateRequest {
        v1::GenerateRequest { logprobs: Some(20), ..greedy("tiny", &[5], TOKENS) }
    }

    async fn unread(
        client: &mut GenerationClient<Channel>,
        count: usize,
    ) -> Result<Vec<Streaming<v1::GenerateResponse>>> {
        let mut streams = Vec::new();
        for _ in 0..count {
            streams.push(client.generate(large()).await?.into_inner());
        }
        Ok(streams)
    }
}
