//! `slm fetch`: an artifact into the cache; prints its path.

use std::{
    io::IsTerminal as _,
    time::{Duration, Instant},
};

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use slm_artifacts::{Phase, Progress, Source};
use slm_launch::{StoreArgs, size};

use crate::credentials::CredentialArgs;
use slm_console::{
    exit::{self, Failure},
    output, store,
};

/// Interval of progress lines without a terminal.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// Fetches a model or an adapter into the cache and prints its path.
///
/// Workers fetch what they need by themselves; this is for filling a cache beforehand, and for finding out why a source
/// cannot be fetched. A path in the cache is good until something else needs the room.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  slm fetch https://example.com/models/x.gguf --digest sha256:…\n  \
                        slm fetch oci://registry.example.com/team/banking:v3 --docker-config ~/.docker/config.json\n  \
                        slm fetch oci://localhost:5000/team/banking@sha256:… --json")]
pub struct FetchArgs {
    /// `file:PATH`, `pvc://CLAIM/PATH`, `https://HOST/FILE` or `oci://HOST/REPOSITORY[:TAG][@DIGEST]`.
    uri: String,
    /// sha256: and 64 digits, of the file or archive (https:) or of the manifest (oci:).
    #[arg(long, value_name = "DIGEST")]
    digest: Option<String>,
    #[command(flatten)]
    credentials: CredentialArgs,
    #[command(flatten)]
    store: StoreArgs,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Runs it.
pub async fn execute(args: FetchArgs) -> Result<(), Failure> {
    let begun = Instant::now();
    let credentials = args.credentials.read()?;
    let store = args.store.clone();
    let store = exit::blocking(move || store::open(&store)).await?;
    let source = Source { uri: args.uri.clone(), digest: args.digest.clone(), credentials };
    let mut display = ProgressDisplay::default();
    let fetched = store.fetch(&source, &mut |progress| display.show(progress)).await;
    display.clear();
    let artifact = fetched?;
    if artifact.digest().is_none() && args.digest.is_some() {
        let message =
            format!("{}: is used in place; --digest is compared only with what is downloaded", source.shown());
        return Err(Failure::usage(message));
    }
    if artifact.is_stale() {
        output::note(&format!("{}: the server is away; this is what it had before", source.shown()));
    }
    if args.json {
        return output::json(&json!({
            "uri": source.shown(),
            "path": artifact.path(),
            "digest": artifact.digest(),
            "bytes": artifact.bytes(),
            "stale": artifact.is_stale(),
            "seconds": begun.elapsed().as_secs_f64(),
        }));
    }
    output::line(&artifact.path().display().to_string())
}

/// A bar on a terminal, now and then a line elsewhere, on standard error.
#[derive(Default)]
struct ProgressDisplay {
    bar: Option<ProgressBar>,
    phase: Option<Phase>,
    written: Option<Instant>,
}

impl ProgressDisplay {
    fn show(&mut self, progress: Progress) {
        let entered = self.phase.replace(progress.phase) != Some(progress.phase);
        if std::io::stderr().is_terminal() {
            let bar = self.bar.get_or_insert_with(ProgressBar::no_length);
            if entered {
                bar.set_style(style(progress.total.is_some()));
                bar.set_message(verb(progress.phase));
            }
            progress.total.into_iter().for_each(|total| bar.set_length(total));
            bar.set_position(progress.done);
        } else if entered || self.written.is_none_or(|written| written.elapsed() >= LINE_EVERY) {
            self.written = Some(Instant::now());
            output::note(&line(progress));
        }
    }

    fn clear(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

fn style(known: bool) -> ProgressStyle {
    let template = if known {
        "{msg} {wide_bar:.green/dim} {binary_bytes}/{binary_total_bytes}, {eta}"
    } else {
        "{msg} {spinner} {binary_bytes}"
    };
    // The template is ours and well formed; a bar without it would still do.
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

fn verb(phase: Phase) -> &'static str {
    match phase {
        Phase::Resolving => "resolving",
        Phase::Waiting => "waiting for another process that fetches it",
        Phase::Verifying => "verifying what was there",
        Phase::Downloading => "downloading",
        Phase::Unpacking => "unpacking",
    }
}

fn line(progress: Progress) -> String {
    let verb = verb(progress.phase);
    match (progress.done, progress.total) {
        (0, None) => verb.to_owned(),
        (done, None) => format!("{verb}: {}", size(done)),
        (done, Some(total)) => format!("{verb}: {} of {}", size(done), size(total)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_say_how_far() {
        let progress = |phase, done, total| Progress { phase, done, total };
        assert_eq!(line(progress(Phase::Resolving, 0, None)), "resolving");
        assert_eq!(line(progress(Phase::Downloading, 0, Some(2048))), "downloading: 0 B of 2.0 KiB");
        assert_eq!(line(progress(Phase::Unpacking, 1024, None)), "unpacking: 1.0 KiB");
    }
}
