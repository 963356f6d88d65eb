//! What stands before the arguments of a call: once it is there, the call is certain.

use super::{Form, forms::mistral};

/// Fields with the arguments of a call.
const ARGUMENTS: [&str; 2] = ["arguments", "parameters"];

/// The text of a call up to its arguments.
#[derive(Debug, PartialEq)]
pub(super) struct Header {
    /// Of the tool.
    pub(super) name: String,
    /// Its bytes; the next is the `{` of the arguments.
    pub(super) bytes: usize,
    /// Whether the call is an object, with the arguments in a field.
    pub(super) object: bool,
    /// Whether the call is in a list.
    pub(super) list: bool,
}

/// The header at the beginning of `text`, which follows a mark of `form`. `None` if more has to come, and for calls that are read as a
/// whole: those in forms without JSON, and those that have their arguments before the name or no arguments.
pub(super) fn header(form: Form, text: &str) -> Option<Header> {
    match form {
        Form::FunctionGemma | Form::Gemma | Form::Code => None,
        Form::MistralList | Form::MistralArgs => match mistral::name(text) {
            Some((name, bytes)) => {
                let spaces = text[bytes..].len() - text[bytes..].trim_start().len();
                let name = text[bytes + spaces..].starts_with('{').then(|| name.to_owned())?;
                Some(Header { name, bytes: bytes + spaces, object: false, list: false })
            }
            None => item(text),
        },
        Form::Hermes | Form::Llama | Form::Phi | Form::Granite | Form::Xml | Form::Json => item(text),
    }
}

/// The header of an object, or of the first in a list.
pub(super) fn item(text: &str) -> Option<Header> {
    let mut reader = Reader { text, at: 0 };
    let list = reader.takes('[');
    let name = reader.object()?;
    Some(Header { name, bytes: reader.at, object: true, list })
}

struct Reader<'t> {
    text: &'t str,
    at: usize,
}

impl Reader<'_> {
    /// Skips white space; whether `letter` comes then. Takes it.
    fn takes(&mut self, letter: char) -> bool {
        let rest = self.text[self.at..].trim_start();
        self.at = self.text.len() - rest.len();
        let takes = rest.starts_with(letter);
        self.at += if takes { letter.len_utf8() } else { 0 };
        takes
    }

    /// The name that an object has before its arguments. Other fields with texts may stand there, such as a type.
    fn object(&mut self) -> Option<String> {
        let mut name = None;
        self.takes('{').then_some(())?;
        loop {
            let key = self.string()?;
            self.takes(':').then_some(())?;
            if ARGUMENTS.contains(&key.as_str()) {
                self.takes('{').then_some(())?;
                self.at -= 1;
                return name;
            }
            let value = self.string()?;
            if key == "name" {
                name = Some(value);
            }
            self.takes(',').then_some(())?;
        }
    }

    fn string(&mut self) -> Option<String> {
        self.takes('"').then_some(())?;
        let from = self.at - 1;
        let mut escaped = false;
        let end = self.text[self.at..].find(|letter| {
            let ends = letter == '"' && !escaped;
            escaped = letter == '\\' && !escaped;
            ends
        })?;
        self.at += end + 1;
        serde_json::from_str(&self.text[from..self.at]).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_ends_before_the_arguments() {
        use Form::*;
        for (form, text, name) in [
            (Hermes, "\n{\"name\": \"add\", \"arguments\": ", "add"),
            (Llama, "{\"type\": \"function\", \"name\": \"a\\u0064d\", \"parameters\": ", "add"),
            (Phi, "[{\"name\": \"add\", \"arguments\": ", "add"),
            (MistralList, " [ {\"name\": \"add\", \"arguments\":\n", "add"),
            (MistralArgs, "add[ARGS] ", "add"),
            (MistralArgs, "add[CALL_ID]abcdefghi[ARGS]", "add"),
            (Json, "{\"name\" : \"\", \"arguments\" :", ""),
        ] {
            let whole = format!("{text}{{\"a\": 1}}");
            let found = header(form, &whole).expect(text);
            assert_eq!((found.name.as_str(), found.bytes), (name, text.len()), "{text}");
            assert_eq!((found.object, found.list), (text.contains("\"name"), text.contains('[') && found.object));
            (0..=text.len()).for_each(|bytes| assert_eq!(header(form, &whole[..bytes]), None, "{text} at {bytes}"));
        }
        for (form, text) in [
            (Hermes, "{\"arguments\": {}, \"name\": \"add\"}"),
            (Hermes, "{\"name\": \"add\", \"arguments\": \"{}\"}"),
            (Hermes, "{\"function\": {\"name\": \"add\", \"arguments\": {}}}"),
            (Hermes, "{\"name\": \"add\", \"count\": 1, \"arguments\": {}}"),
            (Hermes, "{\"name\": \"add\"}"),
            (Xml, "<function=add>{"),
            (Gemma, "call:add{\"a\": 1}"),
            (Code, "add(**{\"a\": 1})"),
            (MistralArgs, "add[ARGS][{"),
        ] {
            assert_eq!(header(form, text), None, "{text}");
        }
    }
}
