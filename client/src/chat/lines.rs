//! What a person types: lines with editing and history in a terminal, or lines of a pipe.

use std::io::{self, BufRead as _, IsTerminal as _};

use rustyline::{DefaultEditor, error::ReadlineError};
use tokio::sync::{mpsc, oneshot};

use slm_console::exit::Failure;

/// Bytes of one message: more than any context holds is not read.
const MESSAGE_BYTES_MAX: usize = 4 << 20;
const PROMPT: &str = "> ";
/// Of lines after the first one of a message.
const PROMPT_MORE: &str = "… ";
/// Begins and ends a message of several lines.
const BLOCK: &str = "\"\"\"";

/// What came.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line {
    Message(String),
    /// An empty line, or one that Ctrl-C has discarded.
    Nothing,
    End,
}

/// Reads lines, on a thread of its own: reading blocks.
pub(super) struct Lines {
    ask: mpsc::Sender<(&'static str, oneshot::Sender<Result<Read, Failure>>)>,
    terminal: bool,
}

enum Read {
    Line(String),
    Discarded,
    End,
}

impl Lines {
    /// # Errors
    /// The terminal cannot be used.
    pub(super) fn open() -> Result<Self, Failure> {
        let terminal = io::stdin().is_terminal();
        let mut editor = if terminal { Some(DefaultEditor::new().map_err(Failure::failed)?) } else { None };
        let (ask, mut asked) = mpsc::channel::<(&'static str, oneshot::Sender<Result<Read, Failure>>)>(1);
        std::thread::Builder::new().name("lines".to_owned()).spawn(move || {
            while let Some((prompt, reply)) = asked.blocking_recv() {
                let read = match &mut editor {
                    Some(editor) => edited(editor, prompt),
                    None => piped(),
                };
                if reply.send(read).is_err() {
                    return;
                }
            }
        })?;
        Ok(Self { ask, terminal })
    }

    pub(super) fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// The next message.
    ///
    /// # Errors
    /// Input that cannot be read, or is not UTF-8; Ctrl-C while a pipe is read.
    pub(super) async fn next(&mut self) -> Result<Line, Failure> {
        let mut message = Message::default();
        loop {
            let prompt = if message.has_begun() { PROMPT_MORE } else { PROMPT };
            match self.read(prompt).await? {
                Read::Discarded => return Ok(Line::Nothing),
                Read::End if message.has_begun() => return Ok(message.end()),
                Read::End => return Ok(Line::End),
                Read::Line(line) => {
                    if message.add(&line) {
                        return Ok(message.end());
                    }
                    if message.text.len() > MESSAGE_BYTES_MAX {
                        return Err(Failure::failed(format!("a message has more than {MESSAGE_BYTES_MAX} bytes")));
                    }
                }
            }
        }
    }

    async fn read(&mut self, prompt: &'static str) -> Result<Read, Failure> {
        let (reply, read) = oneshot::channel();
        let gone = || Failure::failed("the thread that reads lines has ended");
        self.ask.send((prompt, reply)).await.map_err(|_| gone())?;
        tokio::select! {
            read = read => read.map_err(|_| gone())?,
            // In a terminal Ctrl-C is a key of the line.
            _ = tokio::signal::ctrl_c(), if !self.terminal => Err(Failure::Interrupted),
        }
    }
}

fn edited(editor: &mut DefaultEditor, prompt: &str) -> Result<Read, Failure> {
    match editor.readline(prompt) {
        Ok(line) => {
            // Without a place in the history a line cannot be called back, and that is all.
            let _ = editor.add_history_entry(&line);
            Ok(Read::Line(line))
        }
        Err(ReadlineError::Interrupted) => Ok(Read::Discarded),
        Err(ReadlineError::Eof) => Ok(Read::End),
        Err(error) => Err(Failure::failed(format!("reading a line: {error}"))),
    }
}

fn piped() -> Result<Read, Failure> {
    let mut line = String::new();
    let mut limited = io::Read::take(io::stdin().lock(), MESSAGE_BYTES_MAX as u64 + 1);
    let read =
        limited.read_line(&mut line).map_err(|error| Failure::failed(format!("reading standard input: {error}")))?;
    if read == 0 { Ok(Read::End) } else { Ok(Read::Line(line.trim_end_matches(['\r', '\n']).to_owned())) }
}

/// A message that may have several lines.
#[derive(Default)]
struct Message {
    text: String,
    lines: usize,
    in_block: bool,
}

impl Message {
    fn has_begun(&self) -> bool {
        self.lines > 0
    }

    /// Adds a line; whether the message is whole.
    fn add(&mut self, line: &str) -> bool {
        let mut line = line;
        if !self.has_begun()
            && let Some(rest) = line.trim_start().strip_prefix(BLOCK)
        {
            self.in_block = true;
            line = rest;
        }
        let (line, goes_on) = match (self.in_block, line.trim_end().strip_suffix(BLOCK), line.strip_suffix('\\')) {
            (true, Some(last), _) => (last, false),
            (true, None, _) => (line, true),
            (false, _, Some(line)) => (line, true),
            (false, _, None) => (line, false),
        };
        // The quotes of a block may stand on lines of their own.
        if !self.text.is_empty() {
            self.text.push('\n');
        }
        self.text.push_str(line);
        self.lines += 1;
        !goes_on
    }

    fn end(self) -> Line {
        let text = self.text.trim();
        if text.is_empty() { Line::Nothing } else { Line::Message(text.to_owned()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(lines: &[&str]) -> (Line, usize) {
        let mut message = Message::default();
        let used = lines.iter().position(|line| message.add(line)).map_or(lines.len(), |last| last + 1);
        (message.end(), used)
    }

    #[test]
    fn messages_of_one_line_and_of_several() {
        let said = |text: &str| Line::Message(text.to_owned());
        for (lines, expected, used) in [
            (&["hi"][..], said("hi"), 1),
            (&["  "][..], Line::Nothing, 1),
            (&["one\\", "two", "three"][..], said("one\ntwo"), 2),
            (&["\"\"\"one", "", "two\"\"\"", "three"][..], said("one\n\ntwo"), 3),
            (&["\"\"\"", "a \\", "b", "\"\"\""][..], said("a \\\nb"), 4),
            (&["\"\"\"one\"\"\""][..], said("one"), 1),
            (&["say \"\"\""][..], said("say \"\"\""), 1),
        ] {
            assert_eq!(message(lines), (expected, used), "{lines:?}");
        }
    }
}
