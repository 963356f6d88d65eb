//! Server-sent events: bytes, cut anywhere, to the data of events. Pure.

/// Bytes of one line. An event of a model has a few hundred.
const LINE_BYTES_MAX: usize = 1 << 20;

/// Reader of one stream.
#[derive(Debug, Default)]
pub(crate) struct Events {
    line: Vec<u8>,
}

/// A line that does not end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TooLong;

impl Events {
    /// The data of the events that end within `bytes`.
    ///
    /// # Errors
    /// A line is longer than a mebibyte.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Result<Vec<String>, TooLong> {
        let mut data = Vec::new();
        let mut rest = bytes;
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            self.add(&rest[..end])?;
            data.extend(self.take());
            rest = &rest[end + 1..];
        }
        self.add(rest)?;
        Ok(data)
    }

    /// What is left at the end of the stream: some servers leave the last line open.
    pub(crate) fn finish(&mut self) -> Option<String> {
        self.take()
    }

    fn add(&mut self, bytes: &[u8]) -> Result<(), TooLong> {
        if self.line.len() + bytes.len() > LINE_BYTES_MAX {
            return Err(TooLong);
        }
        self.line.extend_from_slice(bytes);
        Ok(())
    }

    /// Endpoints of models write one line of data an event: lines need not be put together.
    fn take(&mut self) -> Option<String> {
        let line = std::mem::take(&mut self.line);
        let text = String::from_utf8_lossy(&line);
        let data = text.trim_end_matches('\r').strip_prefix("data:")?;
        Some(data.trim().to_owned()).filter(|data| !data.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_cut_at_every_byte() {
        let stream = ": hello\r\n\r\ndata: {\"a\":\"é\"}\r\n\r\nevent: x\ndata:{\"b\":2}\n\ndata: [DONE]".as_bytes();
        for cut in 0..=stream.len() {
            let mut events = Events::default();
            let mut data = events.push(&stream[..cut]).expect("short");
            data.extend(events.push(&stream[cut..]).expect("short"));
            data.extend(events.finish());
            assert_eq!(data, ["{\"a\":\"é\"}", "{\"b\":2}", "[DONE]"], "cut at {cut}");
        }
    }

    #[test]
    fn a_line_that_does_not_end() {
        let mut events = Events::default();
        assert_eq!(events.push(&vec![b'x'; LINE_BYTES_MAX]), Ok(Vec::new()));
        assert_eq!(events.push(b"x"), Err(TooLong));
    }
}
