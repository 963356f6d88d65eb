//! Calls within the text of an answer, found while it comes.

use serde_json::{Map, Value};

use super::{
    Form, ToolSet,
    arguments::{Arguments, Progress},
    forms::{Begun, Read, begins, json},
    header::{Header, header, item},
};

/// A call.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Call {
    pub(super) name: String,
    pub(super) arguments: Map<String, Value>,
}

/// A part of an answer.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Part {
    Text(String),
    /// A call that was read as a whole.
    Call(Call),
    /// A call of this tool begins. Its arguments follow.
    Begun(String),
    /// Of the call that has begun: JSON without white space between its parts.
    Arguments(String),
}

/// Finds calls. What only looks like one is text, and so is a call of a tool that does not exist. A call in JSON has begun when its name and
/// the begin of its arguments are there, and stays one whatever follows; its arguments are always a beginning of JSON.
#[derive(Debug)]
pub(super) struct CallReader {
    form: Form,
    tools: ToolSet,
    /// Text that may be, or become, a part of a call.
    buffer: String,
    /// White space before the mark of what may be a call.
    space: String,
    at: At,
    /// What is read of a call that has begun.
    arguments: Arguments,
    /// Whole calls.
    calls: usize,
    /// Whether the arguments of a call are not whole.
    cut: bool,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum At {
    /// Between calls, where nothing else was said so far.
    Start,
    /// In text.
    Text,
    /// After this mark.
    Call(&'static str),
    /// In the arguments of a call.
    Arguments(Place),
    /// After them, in the object that is the call.
    Fields(Place),
    /// After a call.
    After(Place),
    /// Where another call may come.
    Item(Place),
}

/// Where a call stands.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Place {
    list: bool,
    object: bool,
    /// The mark after it.
    close: Option<&'static str>,
}

impl CallReader {
    pub(super) fn new(form: Form, tools: ToolSet) -> Self {
        Self {
            form,
            tools,
            buffer: String::new(),
            space: String::new(),
            at: At::Start,
            arguments: Arguments::new(),
            calls: 0,
            cut: false,
        }
    }

    /// Whether a call has begun whose arguments are not whole.
    pub(super) fn is_cut(&self) -> bool {
        self.cut || matches!(self.at, At::Arguments(_))
    }

    /// Whether no further call may come.
    pub(super) fn is_done(&self) -> bool {
        self.calls > 0 && !self.tools.parallel
    }

    /// Adds text; gives the parts that are certain.
    pub(super) fn push(&mut self, text: &str) -> Vec<Part> {
        if text.is_empty() {
            return Vec::new();
        }
        self.buffer.push_str(text);
        // A call ends with one of these, or its arguments begin: nothing else needs another look at all of it.
        if matches!(self.at, At::Call(_)) && !text.contains(['{', '}', ']', '>', ')']) {
            return Vec::new();
        }
        self.parts(false)
    }

    /// What is left at the end.
    pub(super) fn finish(&mut self) -> Vec<Part> {
        self.parts(true)
    }

    fn parts(&mut self, ends: bool) -> Vec<Part> {
        let mut parts = Vec::new();
        while !self.is_done() && self.step(ends, &mut parts) {}
        if self.is_done() {
            self.buffer.clear();
        }
        if ends {
            // White space around calls is none of the answer.
            let left = std::mem::take(&mut self.buffer);
            let kept = if self.calls > 0 { left.trim_end() } else { &left };
            say(&mut parts, kept);
        }
        parts
    }

    /// Takes the next part from the buffer; whether there may be another.
    fn step(&mut self, ends: bool, parts: &mut Vec<Part>) -> bool {
        match self.at {
            At::Call(mark) => self.call(mark, ends, parts),
            At::Start if self.form.marks().is_empty() => self.bare(ends, parts),
            At::Text if self.form.marks().is_empty() => {
                say(parts, &std::mem::take(&mut self.buffer));
                false
            }
            At::Start | At::Text => self.text(parts),
            At::Arguments(place) => self.arguments(place, parts),
            At::Fields(place) => self.fields(place),
            At::After(place) => self.after(place, ends),
            At::Item(place) => self.item(place, ends, parts),
        }
    }

    /// Text up to the next mark.
    fn text(&mut self, parts: &mut Vec<Part>) -> bool {
        let marks = self.form.marks().iter();
        let first = marks.filter_map(|mark| Some((self.buffer.find(mark)?, *mark))).min_by_key(|(at, _)| *at);
        if let Some((at, mark)) = first {
            let text = self.buffer[..at].trim_end();
            say(parts, text);
            self.buffer[text.len()..at].clone_into(&mut self.space);
            self.buffer.drain(..at + mark.len());
            self.at = At::Call(mark);
            return true;
        }
        let kept = self.form.marks().iter().map(|mark| overlap(&self.buffer, mark)).max().unwrap_or(0);
        let certain = self.buffer[..self.buffer.len() - kept].trim_end().len();
        say(parts, &self.buffer[..certain]);
        self.buffer.drain(..certain);
        false
    }

    /// A call after a mark; its text, if it is none.
    fn call(&mut self, mark: &'static str, ends: bool, parts: &mut Vec<Part>) -> bool {
        let begun = header(self.form, &self.buffer).filter(|header| self.tools.get(&header.name).is_some());
        if let Some(header) = begun {
            self.begin(header, 0, self.form.close(mark), parts);
            return true;
        }
        match self.form.read(mark, &self.buffer, &self.tools, ends) {
            Read::More => false,
            Read::Calls(calls, bytes) if self.are_known(&calls) => {
                self.buffer.drain(..bytes);
                self.at = At::Start;
                self.take(calls, parts);
                true
            }
            Read::Calls(_, bytes) => {
                say(parts, &self.space);
                say(parts, mark);
                say(parts, &self.buffer[..bytes]);
                self.buffer.drain(..bytes);
                self.at = At::Text;
                true
            }
            Read::No => {
                say(parts, &self.space);
                say(parts, mark);
                self.at = At::Text;
                true
            }
        }
    }

    /// A call that nothing marks: it is the answer, or the answer is text.
    fn bare(&mut self, ends: bool, parts: &mut Vec<Part>) -> bool {
        let mut rest = self.buffer.trim_start();
        if self.calls > 0 {
            rest = rest.strip_prefix([';', ',']).unwrap_or(rest).trim_start();
        }
        for prefix in self.form.prefixes() {
            if let Some(after) = rest.strip_prefix(prefix) {
                rest = after.trim_start();
            } else if !rest.is_empty() && prefix.starts_with(rest) && !ends {
                return false;
            }
        }
        if rest.is_empty() {
            return false;
        }
        let before = self.buffer.len() - rest.len();
        let begun = header(self.form, rest).filter(|header| self.tools.get(&header.name).is_some());
        if let Some(header) = begun {
            self.begin(header, before, None, parts);
            return true;
        }
        let read = if rest.starts_with(['{', '[']) { self.form.read("", rest, &self.tools, ends) } else { Read::No };
        match read {
            Read::More => false,
            Read::Calls(calls, bytes) if self.are_known(&calls) => {
                self.buffer.drain(..before + bytes);
                self.take(calls, parts);
                true
            }
            Read::Calls(..) | Read::No => {
                self.at = At::Text;
                true
            }
        }
    }

    /// Begins a call whose header follows so many bytes.
    fn begin(&mut self, header: Header, before: usize, close: Option<&'static str>, parts: &mut Vec<Part>) {
        self.buffer.drain(..before + header.bytes);
        self.arguments = Arguments::new();
        self.at = At::Arguments(Place { list: header.list, object: header.object, close });
        parts.push(Part::Begun(header.name));
    }

    /// Arguments, as far as they have come.
    fn arguments(&mut self, place: Place, parts: &mut Vec<Part>) -> bool {
        let mut kept = String::new();
        let progress = self.arguments.push(&self.buffer, &mut kept);
        if !kept.is_empty() {
            parts.push(Part::Arguments(kept));
        }
        match progress {
            Progress::More => {
                self.buffer.clear();
                return false;
            }
            Progress::Whole(bytes) => {
                self.buffer.drain(..bytes);
                self.calls += 1;
                self.arguments = Arguments::after_field();
                self.at = if place.object { At::Fields(place) } else { At::After(place) };
            }
            Progress::Broken(bytes) => {
                self.buffer.drain(..bytes);
                self.cut = true;
                self.at = At::Text;
            }
        }
        true
    }

    /// Fields after the arguments, such as an id, say nothing. The end of the object may be missing.
    fn fields(&mut self, place: Place) -> bool {
        match self.arguments.push(&self.buffer, &mut String::new()) {
            Progress::More => {
                self.buffer.clear();
                false
            }
            Progress::Whole(bytes) | Progress::Broken(bytes) => {
                self.buffer.drain(..bytes);
                self.at = At::After(place);
                true
            }
        }
    }

    /// After a call: another one, or the end of its list or of its marks. A missing end loses no call.
    fn after(&mut self, place: Place, ends: bool) -> bool {
        let rest = self.buffer.trim_start();
        let before = self.buffer.len() - rest.len();
        if place.list {
            match rest.chars().next() {
                None => return false,
                Some(',') => {
                    self.buffer.drain(..=before);
                    self.at = At::Item(place);
                }
                Some(']') => {
                    self.buffer.drain(..=before);
                    self.at = At::After(Place { list: false, ..place });
                }
                Some(_) => self.at = At::Start,
            }
            return true;
        }
        let end = place.close.map_or(Begun::No, |close| begins(&self.buffer, close));
        match end {
            Begun::Whole((), bytes) => {
                self.buffer.drain(..bytes);
                self.at = At::Start;
            }
            Begun::More if ends => self.buffer.clear(),
            Begun::More => return false,
            Begun::No if place.close.is_some() && rest.starts_with(['{', '[']) => self.at = At::Item(place),
            Begun::No => self.at = At::Start,
        }
        !self.buffer.is_empty()
    }

    /// A call after another one. What is none is text.
    fn item(&mut self, place: Place, ends: bool, parts: &mut Vec<Part>) -> bool {
        let begun = item(&self.buffer).filter(|header| self.tools.get(&header.name).is_some());
        if let Some(header) = begun {
            let list = place.list || header.list;
            self.begin(Header { list, ..header }, 0, place.close, parts);
            return true;
        }
        match json::read(&self.buffer, None, ends) {
            Read::More => false,
            Read::Calls(calls, bytes) if self.are_known(&calls) => {
                self.buffer.drain(..bytes);
                self.at = At::After(place);
                self.take(calls, parts);
                true
            }
            Read::Calls(..) | Read::No => {
                self.at = At::Text;
                true
            }
        }
    }

    fn are_known(&self, calls: &[Call]) -> bool {
        calls.iter().all(|call| self.tools.get(&call.name).is_some())
    }

    fn take(&mut self, calls: Vec<Call>, parts: &mut Vec<Part>) {
        let most = if self.tools.parallel { usize::MAX } else { 1 };
        let calls: Vec<Call> = calls.into_iter().take(most).collect();
        self.calls += calls.len();
        parts.extend(calls.into_iter().map(Part::Call));
    }
}

fn say(parts: &mut Vec<Part>, text: &str) {
    match parts.last_mut() {
        _ if text.is_empty() => {}
        Some(Part::Text(before)) => before.push_str(text),
        _ => parts.push(Part::Text(text.to_owned())),
    }
}

/// Bytes at the end of `text` with which `mark` begins.
pub(super) fn overlap(text: &str, mark: &str) -> usize {
    let most = mark.len().saturating_sub(1).min(text.len());
    (1..=most).rev().find(|&bytes| mark.is_char_boundary(bytes) && text.ends_with(&mark[..bytes])).unwrap_or(0)
}
