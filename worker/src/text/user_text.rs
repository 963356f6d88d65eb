//! Which control tokens of a rendered conversation are the template's own, and which are users' text.
//!
//! A message with the text of a control token (`<|im_end|>`) must not become that token, or its author could end the
//! turn and open a system turn. Templates do more than insert messages: they cut out `<image>`, join words, change
//! letters to lower case, so a token can arise from text that contains none. Therefore the conversation is rendered a
//! second time, with every letter of a control token in the messages replaced by a stand-in, a private-use character.
//! Control tokens in that rendering are the template's own.
//!
//! The second rendering counts if it is the first one once the stand-ins are put back. Templates that look into messages
//! (`'</think>' in message.content`) may need some of the letters, so less and less is replaced until the two agree:
//!
//! 1. all letters of control tokens,
//! 2. only signs (`<`, `|`), for templates that change cases,
//! 3. and 4. the same, but not in strings that the template contains. If a token can be made of these strings alone, the
//!    template is rendered with marks around them, which shows where they ended up.
//!
//! If none agrees (a template that escapes `<`), the control tokens of both renderings are compared in order, and where
//! they differ, no such token counts. A message costs more than one rendering only if it contains such signs.

use std::collections::{BTreeSet, HashMap, HashSet};

use serde_json::Value;
use slm_convert::chat::{ChatError, ChatMessage, ChatTemplate, ChatTool, ChatToolCall, Conversation};

use super::Specials;

/// Beginnings of the ranges of stand-ins, all for private use. The first that does not occur in the messages is taken.
const RANGES: [u32; 12] =
    [0xe000, 0xe400, 0xe800, 0xec00, 0xf000, 0xf400, 0xf_0000, 0xf_4000, 0xf_8000, 0x10_0000, 0x10_4000, 0x10_8000];
/// Size of a range, and bound on the stand-ins.
const RANGE: usize = 0x400;
/// Bound on the strings of a template that are searched in messages.
const LITERALS_MAX: usize = 512;

/// A rendered conversation.
#[derive(Debug)]
pub(super) enum Rendered {
    /// All its control tokens are the template's own.
    AsItIs(String),
    /// Only these are, each with its index and where it stands, in order.
    Own(String, Vec<(usize, std::ops::Range<usize>)>),
}

/// Letters of control tokens.
#[derive(Debug)]
pub(super) struct Letters {
    /// All but white space, the signs first.
    all: Vec<char>,
    /// Number of signs: letters without case; for a token that has none, all of it.
    signs: usize,
    /// Index in `all` of ASCII letters, [`NONE`] for the others.
    ascii: [u16; 128],
    /// The same for other letters.
    others: HashMap<char, u16>,
    /// Whether the tokenizer finds control tokens in text that is not their own, because it normalises it.
    normalized: bool,
}

/// Index of no letter.
const NONE: u16 = u16::MAX;

impl Letters {
    pub(super) fn new(specials: &Specials, normalizes: bool) -> Self {
        let (mut all, mut signs) = (BTreeSet::new(), BTreeSet::new());
        for (_, token) in specials.tokens() {
            let letters = || token.content.chars().filter(|letter| !letter.is_whitespace());
            let has_signs = letters().any(|letter| !letter.is_alphanumeric());
            all.extend(letters());
            signs.extend(letters().filter(|letter| !has_signs || !letter.is_alphanumeric()));
        }
        let all: Vec<char> = signs.iter().chain(all.difference(&signs)).copied().take(RANGE - 2).collect();
        let (mut ascii, mut others) = ([NONE; 128], HashMap::new());
        for (letter, index) in all.iter().zip(0u16..) {
            match ascii.get_mut(*letter as usize) {
                Some(place) => *place = index,
                None => drop(others.insert(*letter, index)),
            }
        }
        let normalized = normalizes && specials.tokens().iter().any(|(_, token)| token.normalized);
        Self { signs: signs.len().min(all.len()), all, ascii, others, normalized }
    }

    /// Whether the tokenizer normalises text before it looks for control tokens.
    pub(super) fn normalized(&self) -> bool {
        self.normalized
    }

    fn index(&self, letter: char) -> Option<u16> {
        match self.ascii.get(letter as usize) {
            Some(index) => Some(*index).filter(|index| *index != NONE),
            None => self.others.get(&letter).copied(),
        }
    }

    fn is_sign(&self, letter: char) -> bool {
        self.index(letter).is_some_and(|index| usize::from(index) < self.signs)
    }

    /// Whether the messages could contribute to a control token.
    fn occur_in(&self, texts: &[&str]) -> bool {
        self.normalized || texts.iter().any(|text| text.contains(|letter| self.is_sign(letter)))
    }
}

/// Renders a conversation and finds the control tokens that are the template's own.
pub(super) fn render(
    template: &ChatTemplate,
    conversation: &Conversation,
    specials: &Specials,
    letters: &Letters,
) -> Result<Rendered, ChatError> {
    let text = template.prompt(conversation)?;
    let said = texts(conversation);
    if !letters.occur_in(&said) {
        return Ok(Rendered::AsItIs(text));
    }
    let Some(stand_ins) = StandIns::new(letters, &said) else { return Ok(Rendered::Own(text, Vec::new())) };
    let used = |literal: &&String| said.iter().any(|text| text.contains(literal.as_str()));
    let literals: Vec<&str> = template.literals().iter().take(LITERALS_MAX).filter(used).map(String::as_str).collect();
    let mut closest = None;
    for kept in [&[][..], &literals[..]] {
        for signs_only in [false, true] {
            let scheme = Scheme { stand_ins: &stand_ins, signs_only, kept, marks: false };
            let Ok(rendered) = template.prompt(&scheme.applied(conversation)) else { continue };
            if stand_ins.undone(&rendered) == text {
                let own = own(&rendered, &scheme, template, conversation, specials);
                return Ok(finished(text, own, specials, &stand_ins, &rendered));
            }
            closest = Some(rendered);
        }
        if literals.is_empty() {
            break;
        }
    }
    Ok(unaligned(text, closest.as_deref(), specials, &stand_ins))
}

/// The template's own tokens of a rendering with stand-ins: all that are found there, unless strings were kept of which
/// a token can be made.
fn own(
    rendered: &str,
    scheme: &Scheme<'_>,
    template: &ChatTemplate,
    conversation: &Conversation,
    specials: &Specials,
) -> Vec<(usize, std::ops::Range<usize>)> {
    let found: Vec<_> = specials.places_in(rendered).collect();
    let free: HashSet<char> = scheme.kept.iter().flat_map(|literal| literal.chars()).collect();
    let doubtful = |index: usize| {
        let content = specials.tokens()[index].1.content.as_str();
        let replaced = |letter: &char| scheme.stand_in(*letter).is_some();
        !scheme.kept.is_empty() && content.chars().filter(replaced).all(|letter| free.contains(&letter))
    };
    if !found.iter().any(|(index, _)| doubtful(*index)) {
        return found;
    }
    let marked = Scheme { marks: true, ..*scheme };
    let marked = template.prompt(&marked.applied(conversation)).unwrap_or_default();
    let places: Vec<_> = specials.places_in(&marked).collect();
    let aligned = places.len() == found.len() && places.iter().zip(&found).all(|(a, b)| a.0 == b.0);
    let [before, after] = scheme.stand_ins.marks;
    let of_user = |at: usize| {
        let range = &places[at].1;
        marked[..range.start].ends_with(before) || marked[range.end..].starts_with(after)
    };
    let is_own = |at: usize, index: usize| !doubtful(index) || (aligned && !of_user(at));
    found.into_iter().enumerate().filter(|(at, (index, _))| is_own(*at, *index)).map(|(_, place)| place).collect()
}

/// The result of a rendering that agrees with `text`.
fn finished(
    text: String,
    own: Vec<(usize, std::ops::Range<usize>)>,
    specials: &Specials,
    stand_ins: &StandIns<'_>,
    rendered: &str,
) -> Rendered {
    // Stand-ins have other lengths than the letters that they stand for.
    let (mut from, mut to) = (0, 0);
    let own: Vec<_> = own
        .into_iter()
        .map(|(index, range)| {
            to += stand_ins.undone(&rendered[from..range.start]).len();
            let start = to;
            to += range.len();
            from = range.end;
            (index, start..to)
        })
        .collect();
    if specials.places_in(&text).eq(own.iter().cloned()) { Rendered::AsItIs(text) } else { Rendered::Own(text, own) }
}

/// The result if no rendering agrees: the template changes letters of control tokens in another way. Control tokens that
/// are the same in both are its own, as far as what stands between two of them and is no user's text is the same, too.
fn unaligned(text: String, closest: Option<&str>, specials: &Specials, stand_ins: &StandIns<'_>) -> Rendered {
    let Some(closest) = closest else { return Rendered::Own(text, Vec::new()) };
    let (ours, theirs) = (pieces(&text, specials), pieces(closest, specials));
    let same = ours.len() == theirs.len()
        && ours.iter().zip(&theirs).all(|((a, text), (b, other))| {
            a == b && (text == other || other.contains(|letter| stand_ins.is_one(letter)))
        });
    if same {
        return Rendered::AsItIs(text);
    }
    let count = |pieces: &[(Option<usize>, &str)]| {
        let mut counts = HashMap::new();
        pieces.iter().filter_map(|(index, _)| *index).for_each(|index| *counts.entry(index).or_insert(0usize) += 1);
        counts
    };
    let (ours, theirs) = (count(&ours), count(&theirs));
    let own = specials.places_in(&text).filter(|(index, _)| ours.get(index) <= theirs.get(index)).collect();
    Rendered::Own(text, own)
}

/// Texts between control tokens, each with the token that ends it.
fn pieces<'t>(text: &'t str, specials: &Specials) -> Vec<(Option<usize>, &'t str)> {
    let (mut pieces, mut from) = (Vec::new(), 0);
    for (index, range) in specials.places_in(text) {
        pieces.push((Some(index), &text[from..range.start]));
        from = range.end;
    }
    pieces.push((None, &text[from..]));
    pieces
}

/// Private-use characters in place of letters.
#[derive(Debug)]
struct StandIns<'l> {
    letters: &'l Letters,
    first: u32,
    /// Marks before and after a string that is kept.
    marks: [char; 2],
}

impl<'l> StandIns<'l> {
    /// `None` if the messages use all ranges.
    fn new(letters: &'l Letters, texts: &[&str]) -> Option<Self> {
        let is_used = |first: u32| {
            let range = first..first + RANGE as u32;
            texts.iter().any(|text| text.contains(|letter| range.contains(&u32::from(letter))))
        };
        let first = RANGES.into_iter().find(|first| !is_used(*first))?;
        let mark = |index: usize| char::from_u32(first + index as u32);
        Some(Self { letters, first, marks: [mark(RANGE - 2)?, mark(RANGE - 1)?] })
    }

    fn is_one(&self, letter: char) -> bool {
        (self.first..self.first + RANGE as u32).contains(&u32::from(letter))
    }

    /// `text` with the letters in place of the stand-ins.
    fn undone(&self, text: &str) -> String {
        let letter = |letter: char| {
            let index = u32::from(letter).checked_sub(self.first);
            index.and_then(|index| self.letters.all.get(index as usize).copied()).unwrap_or(letter)
        };
        text.chars().map(letter).collect()
    }
}

/// What is replaced in messages.
#[derive(Clone, Copy)]
struct Scheme<'s> {
    stand_ins: &'s StandIns<'s>,
    signs_only: bool,
    /// Strings that stay as they are, longer ones first.
    kept: &'s [&'s str],
    /// Whether they get marks around them.
    marks: bool,
}

impl Scheme<'_> {
    /// Roles are compared and written by templates as words, so only their signs are replaced. Variables are the template's.
    fn applied(&self, conversation: &Conversation) -> Conversation {
        let roles = Scheme { signs_only: true, marks: false, ..*self };
        let optional = |text: &Option<String>| text.as_deref().map(|text| self.replaced(text));
        let call = |call: &ChatToolCall| ChatToolCall {
            id: self.replaced(&call.id),
            name: self.replaced(&call.name),
            arguments: self.replaced_in(&call.arguments),
        };
        let message = |message: &ChatMessage| ChatMessage {
            role: roles.replaced(&message.role),
            content: self.replaced(&message.content),
            name: optional(&message.name),
            tool_calls: message.tool_calls.iter().map(call).collect(),
            tool_call_id: optional(&message.tool_call_id),
            reasoning: optional(&message.reasoning),
        };
        let tool = |tool: &ChatTool| ChatTool {
            name: self.replaced(&tool.name),
            description: self.replaced(&tool.description),
            parameters: roles.replaced_in(&tool.parameters),
        };
        Conversation {
            messages: conversation.messages.iter().map(message).collect(),
            tools: conversation.tools.iter().map(tool).collect(),
            calls: conversation.calls,
            variables: conversation.variables.clone(),
            end: conversation.end,
        }
    }

    /// In a JSON value. Templates compare the keywords and types of a schema, which have no signs but `_` and `$`.
    fn replaced_in(&self, value: &Value) -> Value {
        match value {
            Value::String(text) => Value::String(self.replaced(text)),
            Value::Array(items) => items.iter().map(|item| self.replaced_in(item)).collect(),
            Value::Object(fields) => {
                let fields = fields.iter().map(|(key, value)| (self.replaced(key), self.replaced_in(value)));
                Value::Object(fields.collect())
            }
            other => other.clone(),
        }
    }

    fn stand_in(&self, letter: char) -> Option<char> {
        let index = self.stand_ins.letters.index(letter)?;
        let replaces = !self.signs_only || self.stand_ins.letters.is_sign(letter);
        char::from_u32(self.stand_ins.first + u32::from(index)).filter(|_| replaces)
    }

    fn replaced(&self, text: &str) -> String {
        let mut out = String::with_capacity(text.len() + text.len() / 2);
        let mut rest = text;
        while let Some(letter) = rest.chars().next() {
            if let Some(literal) = self.kept.iter().find(|literal| rest.starts_with(**literal)) {
                let [before, after] = self.stand_ins.marks;
                // Words without signs are no part of a token that is in doubt.
                let marks = self.marks && literal.contains(|letter| self.stand_ins.letters.is_sign(letter));
                out.extend(Some(before).filter(|_| marks));
                out.push_str(literal);
                out.extend(Some(after).filter(|_| marks));
                rest = &rest[literal.len()..];
                continue;
            }
            out.push(self.stand_in(letter).unwrap_or(letter));
            rest = &rest[letter.len_utf8()..];
        }
        out
    }
}

/// Everything that others wrote.
fn texts(conversation: &Conversation) -> Vec<&str> {
    let mut texts = Vec::new();
    for message in &conversation.messages {
        texts.extend([message.role.as_str(), message.content.as_str()]);
        texts.extend(
            [&message.name, &message.tool_call_id, &message.reasoning].into_iter().filter_map(|text| text.as_deref()),
        );
        for call in &message.tool_calls {
            texts.extend([call.id.as_str(), call.name.as_str()]);
            add_texts(&call.arguments, &mut texts);
        }
    }
    for tool in &conversation.tools {
        texts.extend([tool.name.as_str(), tool.description.as_str()]);
        add_texts(&tool.parameters, &mut texts);
    }
    texts
}

fn add_texts<'v>(value: &'v Value, texts: &mut Vec<&'v str>) {
    match value {
        Value::String(text) => texts.push(text),
        Value::Array(items) => items.iter().for_each(|item| add_texts(item, texts)),
        Value::Object(fields) => fields.iter().for_each(|(key, value)| {
            texts.push(key);
            add_texts(value, texts);
        }),
        _ => {}
    }
}
