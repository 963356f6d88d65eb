//! Commands within a conversation: lines that begin with a slash.

/// What `/help` says.
pub(super) const HELP: &str = "\
/clear          begin a new conversation
/model NAME     another model, adapter or route answers
/system [TEXT]  another system message, or none
/help           this list
/exit           end";

/// A command.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Command {
    Help,
    Clear,
    Model(String),
    System(String),
    Exit,
    Unknown(String),
}

impl Command {
    /// The command of a line; `None` for a message. A path or a fraction is a message.
    pub(super) fn read(line: &str) -> Option<Self> {
        let rest = line.strip_prefix('/')?;
        let (name, argument) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
        if name.is_empty() || !name.chars().all(|letter| letter.is_ascii_lowercase()) {
            return None;
        }
        let argument = argument.trim().to_owned();
        Some(match name {
            "help" => Self::Help,
            "clear" => Self::Clear,
            "model" if !argument.is_empty() => Self::Model(argument),
            "system" => Self::System(argument),
            "exit" | "quit" | "bye" => Self::Exit,
            _ => Self::Unknown(format!("/{name}")),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        for (line, command) in [
            ("hello", None),
            ("/etc/hosts is a file", None),
            ("/ 2", None),
            ("/help", Some(Command::Help)),
            ("/model  banking ", Some(Command::Model("banking".to_owned()))),
            ("/model", Some(Command::Unknown("/model".to_owned()))),
            ("/system Be brief.", Some(Command::System("Be brief.".to_owned()))),
            ("/system", Some(Command::System(String::new()))),
            ("/bye", Some(Command::Exit)),
            ("/joke", Some(Command::Unknown("/joke".to_owned()))),
        ] {
            assert_eq!(Command::read(line), command, "{line}");
        }
    }
}
