//! GGUF files, version 3, written.

use std::{
    fs::File,
    io::{self, BufWriter, Write},
    path::Path,
};

/// Codes of the format.
const TYPE_U32: u32 = 4;
const TYPE_F32: u32 = 6;
const TYPE_TEXT: u32 = 8;
/// Bytes to a multiple of which every tensor's data is padded; the format's default.
const ALIGNMENT: usize = 32;

/// A file under construction: its metadata and the list of its tensors.
#[derive(Default)]
pub(crate) struct GgufFile {
    entries: u64,
    metadata: Vec<u8>,
    tensors: Vec<TensorInfo>,
}

/// A tensor of the list.
pub(crate) struct TensorInfo {
    pub(crate) name: String,
    /// The one that varies fastest comes first.
    pub(crate) dimensions: Vec<usize>,
    /// Code of its type (`ggml_type`).
    pub(crate) code: u32,
    /// Bytes of its data.
    pub(crate) bytes: usize,
}

impl GgufFile {
    pub(crate) fn text(&mut self, key: &str, value: &str) {
        self.key(key, TYPE_TEXT);
        put_text(&mut self.metadata, value);
    }

    pub(crate) fn f32(&mut self, key: &str, value: f32) {
        self.key(key, TYPE_F32);
        self.metadata.extend(value.to_le_bytes());
    }

    pub(crate) fn u32(&mut self, key: &str, value: u32) {
        self.key(key, TYPE_U32);
        self.metadata.extend(value.to_le_bytes());
    }

    /// Adds an entry as it stands in another file: key, type and value.
    pub(crate) fn entry(&mut self, bytes: &[u8]) {
        self.entries += 1;
        self.metadata.extend(bytes);
    }

    pub(crate) fn tensor(&mut self, tensor: TensorInfo) {
        self.tensors.push(tensor);
    }

    /// Writes the file; `data` gives the bytes of each tensor.
    pub(crate) fn write(&self, path: &Path, mut data: impl FnMut(&TensorInfo) -> Vec<u8>) -> io::Result<()> {
        let mut head = b"GGUF".to_vec();
        head.extend(3u32.to_le_bytes());
        head.extend((self.tensors.len() as u64).to_le_bytes());
        head.extend(self.entries.to_le_bytes());
        head.extend(&self.metadata);
        let mut offset = 0;
        for tensor in &self.tensors {
            put_text(&mut head, &tensor.name);
            head.extend((tensor.dimensions.len() as u32).to_le_bytes());
            tensor.dimensions.iter().for_each(|dimension| head.extend((*dimension as u64).to_le_bytes()));
            head.extend(tensor.code.to_le_bytes());
            head.extend((offset as u64).to_le_bytes());
            offset += tensor.bytes.next_multiple_of(ALIGNMENT);
        }
        head.resize(head.len().next_multiple_of(ALIGNMENT), 0);
        let mut out = BufWriter::new(File::create(path)?);
        out.write_all(&head)?;
        for tensor in &self.tensors {
            let mut bytes = data(tensor);
            debug_assert_eq!(bytes.len(), tensor.bytes, "{}", tensor.name);
            bytes.resize(bytes.len().next_multiple_of(ALIGNMENT), 0);
            out.write_all(&bytes)?;
        }
        out.flush()
    }

    fn key(&mut self, key: &str, kind: u32) {
        self.entries += 1;
        put_text(&mut self.metadata, key);
        self.metadata.extend(kind.to_le_bytes());
    }
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend_from_slice(text.as_bytes());
}
