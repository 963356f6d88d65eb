//! The files of a head: `head.json`, and its matrices in `head.safetensors`.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use safetensors::{Dtype, SafeTensorError, SafeTensors, tensor::TensorView};
use serde::{Deserialize, Serialize};
use slm_convert::peft::{HEAD_FILE as CONFIG_FILE, HEAD_WEIGHTS_FILE as WEIGHTS_FILE};
use thiserror::Error;

use crate::{
    fit::LABELS_MAX,
    head::{Calibration, Encoder, Head, Label, Linear, Spread, Training},
};

const FORMAT: &str = "slm-head/1";
const CONFIG_BYTES_MAX: u64 = 4 << 20;
const WEIGHTS_BYTES_MAX: u64 = 1 << 30;
/// Numbers of a vector at most; encoders have 384 to 4096.
const WIDTH_MAX: usize = 8192;

/// A head that cannot be read or written.
#[derive(Debug, Error)]
pub enum HeadError {
    /// The file system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// Path of the file.
        path: PathBuf,
        /// Error of the operating system.
        source: io::Error,
    },
    /// A file that is larger than any head.
    #[error("{}: {bytes} bytes; the limit is {most}", path.display())]
    Large {
        /// Path of the file.
        path: PathBuf,
        /// Its size.
        bytes: u64,
        /// The limit.
        most: u64,
    },
    /// `head.json` is not what it should be.
    #[error("{}: {problem}; write it anew with `slm route train`", path.display())]
    Config {
        /// Path of the file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// `head.safetensors` is not what it should be.
    #[error("{}: {problem}; the file is damaged, or of another head: fetch both, or write them anew with `slm route train`", path.display())]
    Weights {
        /// Path of the file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    format: String,
    encoder: Encoder,
    labels: Vec<Label>,
    calibration: Calibration,
    training: Training,
}

impl Head {
    /// Reads the head in the folder `dir`.
    ///
    /// # Errors
    /// A file is missing, damaged, of another version, or larger than any head.
    pub fn open(dir: &Path) -> Result<Self, HeadError> {
        let path = dir.join(CONFIG_FILE);
        let wrong = |problem: String| HeadError::Config { path: path.clone(), problem };
        let bytes = read(&path, CONFIG_BYTES_MAX)?;
        let Config { format, encoder, labels, calibration, training } =
            serde_json::from_slice(&bytes).map_err(|error| wrong(error.to_string()))?;
        if format != FORMAT {
            return Err(wrong(format!("`format` is {format}; this version reads {FORMAT}")));
        }
        check(&encoder, &labels, &calibration).map_err(wrong)?;
        let path = dir.join(WEIGHTS_FILE);
        let bytes = read(&path, WEIGHTS_BYTES_MAX)?;
        let wrong = |problem: String| HeadError::Weights { path: path.clone(), problem };
        let tensors = SafeTensors::deserialize(&bytes).map_err(|error| wrong(error.to_string()))?;
        let (count, width) = (labels.len(), encoder.width);
        let tensor = |name: &str, shape: &[usize]| numbers(&tensors, name, shape).map_err(&wrong);
        let linear = Linear { weight: tensor("weight", &[count, width])?, bias: tensor("bias", &[count])? };
        let spread =
            Spread { whitening: tensor("whitening", &[width, width])?, means: tensor("means", &[count, width])? };
        Ok(Self { encoder, labels, linear, spread, calibration, training })
    }

    /// Writes the head into the folder `dir`, which is made if it is not there. `head.json` comes last, so that a folder without
    /// it has no head.
    ///
    /// # Errors
    /// The file system refused.
    pub fn save(&self, dir: &Path) -> Result<(), HeadError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| HeadError::Io { path, source }
        };
        fs::create_dir_all(dir).map_err(failed(dir))?;
        let (count, width) = (self.labels.len(), self.encoder.width);
        let tensors = [
            ("weight", vec![count, width], &self.linear.weight),
            ("bias", vec![count], &self.linear.bias),
            ("whitening", vec![width, width], &self.spread.whitening),
            ("means", vec![count, width], &self.spread.means),
        ];
        let path = dir.join(WEIGHTS_FILE);
        let wrong = |error: SafeTensorError| HeadError::Weights { path: path.clone(), problem: error.to_string() };
        let views = tensors.iter().map(|(name, shape, numbers)| {
            let view = TensorView::new(Dtype::F32, shape.clone(), bytemuck::cast_slice(numbers));
            view.map(|view| (*name, view))
        });
        let views = views.collect::<Result<Vec<_>, _>>().map_err(wrong)?;
        let bytes = safetensors::serialize(views, None).map_err(wrong)?;
        write(&path, &bytes).map_err(failed(&path))?;
        let path = dir.join(CONFIG_FILE);
        let config = Config {
            format: FORMAT.to_owned(),
            encoder: self.encoder.clone(),
            labels: self.labels.clone(),
            calibration: self.calibration.clone(),
            training: self.training.clone(),
        };
        let mut text = serde_json::to_string_pretty(&config)
            .map_err(|error| HeadError::Config { path: path.clone(), problem: error.to_string() })?;
        text.push('\n');
        write(&path, text.as_bytes()).map_err(failed(&path))
    }
}

/// Under another name first, so that the file is whole whenever it is there.
fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let partial = path.with_extension("partial");
    fs::write(&partial, bytes)?;
    fs::rename(&partial, path)
}

fn read(path: &Path, most: u64) -> Result<Vec<u8>, HeadError> {
    let failed = |source| HeadError::Io { path: path.to_owned(), source };
    let bytes = fs::metadata(path).map_err(failed)?.len();
    if bytes > most {
        return Err(HeadError::Large { path: path.to_owned(), bytes, most });
    }
    fs::read(path).map_err(failed)
}

fn check(encoder: &Encoder, labels: &[Label], calibration: &Calibration) -> Result<(), String> {
    if !(1..=WIDTH_MAX).contains(&encoder.width) {
        return Err(format!("`encoder.width` is {}; vectors have 1 to {WIDTH_MAX} numbers", encoder.width));
    }
    if !(2..=LABELS_MAX).contains(&labels.len()) {
        return Err(format!("{} labels; a head has 2 to {LABELS_MAX}", labels.len()));
    }
    if let Some(empty) = labels.iter().find(|label| label.name.is_empty() || label.expert.is_empty()) {
        return Err(format!("the label `{}` of the expert `{}`: neither may be empty", empty.name, empty.expert));
    }
    let Calibration { temperature, distance, energy, nonconformity, .. } = calibration;
    let positive = |number: f32| number.is_finite() && number > 0.0;
    if ![*temperature, distance.deviation, energy.deviation].into_iter().all(positive) {
        return Err("a temperature or a deviation of `calibration` is not positive".to_owned());
    }
    if nonconformity.is_empty() || !nonconformity.is_sorted() || nonconformity.iter().any(|x| !x.is_finite()) {
        return Err("`calibration.nonconformity` is not a list of numbers in ascending order".to_owned());
    }
    Ok(())
}

fn numbers(tensors: &SafeTensors<'_>, name: &str, shape: &[usize]) -> Result<Vec<f32>, String> {
    let tensor = tensors.tensor(name).map_err(|_| format!("the tensor `{name}` is missing"))?;
    if tensor.dtype() != Dtype::F32 || tensor.shape() != shape {
        let (found, dtype) = (tensor.shape(), tensor.dtype());
        return Err(format!("the tensor `{name}` is {dtype:?} {found:?}; {CONFIG_FILE} needs F32 {shape:?}"));
    }
    // The data of a file need not be aligned.
    let numbers = tensor.data().as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes));
    let numbers: Vec<f32> = numbers.collect();
    match numbers.iter().all(|x| x.is_finite()) {
        true => Ok(numbers),
        false => Err(format!("the tensor `{name}` has a number that is not finite")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fit::{fit, tests::set};

    #[test]
    fn a_head_is_kept_as_it_is() {
        let dir = tempfile::tempdir().expect("a folder");
        let head = fit(set(10)).expect("a head").head;
        let folder = dir.path().join("new/folder");
        head.save(&folder).expect("saved");
        let opened = Head::open(&folder).expect("opened");
        assert_eq!(opened.labels(), head.labels());
        for vector in set(10).vectors {
            assert_eq!(opened.classify(&vector), head.classify(&vector));
        }
        head.save(&folder).expect("saved again");
        let names: Vec<_> = fs::read_dir(&folder).expect("a folder").flatten().map(|entry| entry.file_name()).collect();
        assert_eq!(names.len(), 2, "{names:?}");
    }

    #[test]
    fn damaged_files_are_refused_with_what_is_wrong() {
        let dir = tempfile::tempdir().expect("a folder");
        let (config, weights) = (dir.path().join(CONFIG_FILE), dir.path().join(WEIGHTS_FILE));
        let head = fit(set(10)).expect("a head").head;
        let refused = |change: &dyn Fn()| {
            head.save(dir.path()).expect("saved");
            change();
            Head::open(dir.path()).expect_err("refused").to_string()
        };
        let replace = |from: &'static str, to: &'static str| {
            let config = config.clone();
            move || {
                let text = fs::read_to_string(&config).expect("read");
                assert!(text.contains(from), "{from}");
                fs::write(&config, text.replacen(from, to, 1)).expect("written");
            }
        };
        for (from, to, problem) in [
            ("slm-head/1", "slm-head/9", "`format` is slm-head/9; this version reads slm-head/1"),
            ("\"width\": 8", "\"width\": 9", "the tensor `weight` is F32 [3, 8]; head.json needs F32 [3, 9]"),
            ("\"width\": 8", "\"width\": 0", "`encoder.width` is 0"),
            ("\"banking\"", "\"\"", "the label `balance` of the expert ``: neither may be empty"),
            ("\"format\"", "\"more\": 1, \"format\"", "unknown field `more`"),
            ("\"temperature\": ", "\"temperature\": -", "a temperature or a deviation"),
        ] {
            let told = refused(&replace(from, to));
            assert!(told.contains(problem) && told.contains("head.json"), "{told}");
        }
        let cut = refused(&|| {
            let bytes = fs::read(&weights).expect("read");
            fs::write(&weights, &bytes[..bytes.len() / 2]).expect("written");
        });
        assert!(cut.contains("head.safetensors") && cut.contains("damaged"), "{cut}");
        let gone = refused(&|| fs::remove_file(&weights).expect("removed"));
        assert!(gone.contains("head.safetensors"), "{gone}");
        let not_finite = refused(&|| {
            let mut bytes = fs::read(&weights).expect("read");
            let at = bytes.len() - 4;
            bytes[at..].copy_from_slice(&f32::NAN.to_le_bytes());
            fs::write(&weights, &bytes).expect("written");
        });
        assert!(not_finite.contains("not finite"), "{not_finite}");
    }
}
