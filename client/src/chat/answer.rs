//! One answer, written as it is generated, until its end or Ctrl-C.

use std::time::Instant;

use slm_proto::v1::{Delta, Finished, GenerateRequest, GenerateResponse, Started, generate_response::Event};
use tonic::{Status, Streaming};

use crate::{
    connection::{Client, refused},
    explain,
};
use slm_console::{exit::Failure, output, style, style::styled};

/// How an answer ended.
pub(super) enum Ended {
    Whole(String),
    /// By Ctrl-C, with what there was.
    Stopped(String),
    Refused(Failure),
}

/// Writes the answer.
///
/// # Errors
/// It cannot be written.
pub(super) async fn answer(client: &mut Client, request: GenerateRequest, explain: bool) -> Result<Ended, Failure> {
    let mut writing =
        Writing { begun: Instant::now(), first: None, text: String::new(), thinks: false, started: Started::default() };
    // Heard from before the request is sent: Ctrl-C ends the answer from now on, not the program.
    let stopped = tokio::signal::ctrl_c();
    tokio::pin!(stopped);
    let mut events: Streaming<GenerateResponse> = tokio::select! {
        answered = client.generation.generate(request) => match answered {
            Ok(response) => response.into_inner(),
            Err(status) => return Ok(Ended::Refused(refused(&status))),
        },
        _ = &mut stopped => return writing.stop(),
    };
    loop {
        let event = tokio::select! {
            event = events.message() => event,
            _ = &mut stopped => return writing.stop(),
        };
        match event {
            Ok(Some(response)) => {
                if let Some(finished) = writing.take(response.event)? {
                    writing.finish(&finished, explain)?;
                    return Ok(Ended::Whole(writing.text));
                }
            }
            Ok(None) => return writing.broken(&Status::unavailable("the answer ended before its end")),
            Err(status) => return writing.broken(&status),
        }
    }
}

struct Writing {
    begun: Instant,
    first: Option<Instant>,
    text: String,
    /// Whether thoughts came before the text.
    thinks: bool,
    started: Started,
}

impl Writing {
    /// The end, if this is it.
    fn take(&mut self, event: Option<Event>) -> Result<Option<Finished>, Failure> {
        match event {
            Some(Event::Started(started)) => self.started = started,
            Some(Event::Delta(delta)) => self.write(&delta)?,
            Some(Event::Finished(finished)) => return Ok(Some(finished)),
            None => {}
        }
        Ok(None)
    }

    fn write(&mut self, delta: &Delta) -> Result<(), Failure> {
        self.first.get_or_insert_with(Instant::now);
        self.thinks |= !delta.reasoning.is_empty();
        output::thought(&delta.reasoning, self.thinks && self.text.is_empty() && !delta.text.is_empty());
        self.text.push_str(&delta.text);
        output::text(&delta.text)
    }

    fn end_line(&self) -> Result<(), Failure> {
        if self.text.is_empty() || self.text.ends_with('\n') { Ok(()) } else { output::line("") }
    }

    /// The expert and the speed, for people.
    fn finish(&self, finished: &Finished, explain: bool) -> Result<(), Failure> {
        self.end_line()?;
        if let (true, Some(decision)) = (explain, &self.started.decision) {
            output::note(&styled(style::DIM, explain::words(decision).trim_end()));
        }
        let tokens = finished.usage.unwrap_or_default().completion_tokens;
        let expert = self.started.expert.as_ref().map_or("", |expert| expert.name.as_str());
        let first = self.first.unwrap_or_else(Instant::now);
        let rate = f64::from(tokens.saturating_sub(1)) / first.elapsed().as_secs_f64().max(1e-9);
        let waited = first.duration_since(self.begun).as_millis();
        let facts = format!("{expert}: {tokens} tokens, {rate:.1} tokens/s, first after {waited} ms");
        output::note(&styled(style::DIM, &facts));
        Ok(())
    }

    fn stop(self) -> Result<Ended, Failure> {
        self.end_line()?;
        output::note(&styled(style::DIM, "stopped"));
        Ok(Ended::Stopped(self.text))
    }

    fn broken(self, status: &Status) -> Result<Ended, Failure> {
        self.end_line()?;
        Ok(Ended::Refused(refused(status)))
    }
}
