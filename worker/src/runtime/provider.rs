//! Execution providers: which backend a model is opened on.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, atomic::AtomicBool},
};

use ort::{operator::OperatorDomain, session::Session};
use slm_convert::{
    bundle::{Bundle, FlavourChoice, PrecisionChoice},
    graph::{Activations, Form},
    pack::pack,
    peft::Adapter,
};
use slm_kernels::attention::PAGE;

use super::{
    assignment::{self, Assignment},
    backend::{Backend, SessionConfig, SessionError},
    cpu::{self, DecoderSession, EncoderConfig, EncoderSession},
    cuda::{self, Cuda},
    device::{Device, Host},
    library::Runtime,
    openvino::{self, OpenVinoDevice},
    rows::{Bank, BankError, RowsSession, bank_add, row_bytes, run_tokens},
    sessions::{builder, commit, plain},
};
use crate::adapters::{AdapterTable, HostAdapter, LoadedAdapter, PrepareError};

/// Name of the CUDA execution provider, and its library beside ONNX Runtime's.
pub(super) const CUDA_NAME: &str = "CUDAExecutionProvider";
const CUDA_LIBRARY: &str = "libonnxruntime_providers_cuda.so";

/// An execution provider with its graphs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Provider {
    /// The project's operators on the CPU.
    #[default]
    Cpu,
    /// Graphs of the form for CUDA on ONNX Runtime's CPU provider: slow, for tests.
    CpuGqa(Activations),
    /// Graphs of the form for TensorRT on ONNX Runtime's CPU provider: slow, for tests.
    CpuStandard(Activations),
    /// Graphs of the form for OpenVINO on ONNX Runtime's CPU provider: slow, for tests.
    CpuDelta(Activations),
    /// GPU of that index among those that the process sees.
    Cuda(usize),
    /// OpenVINO, with graphs of its form and 32-bit activations.
    OpenVino {
        /// What it computes on.
        device: OpenVinoDevice,
    },
}

/// As the flag `--execution-provider` has it; graphs for tests by their own names.
impl fmt::Display for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cpu => "Cpu",
            Self::CpuGqa(_) => "CpuGqa",
            Self::CpuStandard(_) => "CpuStandard",
            Self::CpuDelta(_) => "CpuDelta",
            Self::Cuda(_) => "Cuda",
            Self::OpenVino { .. } => "OpenVino",
        })
    }
}

/// An execution provider cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProviderError {
    /// The driver is not there.
    #[error(
        "no NVIDIA driver: libcuda.so.1 does not load; on a node with a GPU, install the driver and NVIDIA's container toolkit, and \
         ask for the GPU in the pod's resources"
    )]
    NoDriver,
    /// The driver is too old.
    #[error("the NVIDIA driver supports CUDA {found}; ONNX Runtime needs CUDA 13, so a driver of series 580 or newer")]
    OldDriver {
        /// CUDA version that the driver supports.
        found: String,
    },
    /// There is no such GPU.
    #[error("no GPU {index}: this process sees {devices}; see CUDA_VISIBLE_DEVICES and the pod's resources")]
    NoDevice {
        /// Index of the GPU.
        index: usize,
        /// Number of visible GPUs.
        devices: usize,
    },
    /// A call of the driver failed.
    #[error("the NVIDIA driver: {call}: {error}; see what `nvidia-smi` says on this node")]
    Driver {
        /// What was called.
        call: &'static str,
        /// Message of the driver.
        error: String,
    },
    /// The compiler of kernels is not there.
    #[error("libnvrtc.so.13 does not load; put CUDA 13's NVRTC on the library path (wheel nvidia-cuda-nvrtc)")]
    NoCompiler,
    /// A kernel does not compile.
    #[error("NVRTC: {error}; please report this with the GPU's name and the version of CUDA")]
    Compile {
        /// Message of the compiler.
        error: String,
    },
    /// The provider's library is not there.
    #[error(
        "{path}: no such file; ONNX Runtime's library must be that of `pip install onnxruntime-gpu`, with {CUDA_LIBRARY} beside it"
    )]
    NoLibrary {
        /// Where it should be.
        path: PathBuf,
    },
    /// The provider's library does not load.
    #[error(
        "{path}: {error}; it needs CUDA 13 and cuDNN 9 on the library path (wheels nvidia-cublas, nvidia-cuda-runtime, nvidia-curand, \
         nvidia-cudnn-cu13)"
    )]
    Library {
        /// The library.
        path: PathBuf,
        /// Message of ONNX Runtime.
        error: String,
    },
    /// The library has no OpenVINO.
    #[error(
        "{path}: no OpenVINO in this ONNX Runtime: {error}; set ORT_DYLIB_PATH to the libonnxruntime.so of the wheel \
         onnxruntime-openvino 1.24.1 (folder onnxruntime/capi), with the other libraries of that folder beside it"
    )]
    NoOpenVino {
        /// ONNX Runtime's library.
        path: PathBuf,
        /// Message of ONNX Runtime.
        error: String,
    },
    /// ONNX Runtime does not list the device.
    #[error(
        "ONNX Runtime lists no device {index} for {name}, only {listed}; its libraries must be of one version, and see \
         CUDA_VISIBLE_DEVICES"
    )]
    NotListed {
        /// Name of the provider.
        name: &'static str,
        /// Index of the device.
        index: usize,
        /// Devices that it lists.
        listed: String,
    },
}

/// Bounds on adapters.
#[derive(Debug, Clone, Copy)]
pub struct AdapterRoom {
    /// Loaded adapters.
    pub slots: usize,
    /// Rank of an adapter.
    pub rank_max: usize,
}

/// An open model.
pub struct Opened {
    /// Its forward pass.
    pub backend: Box<dyn Backend>,
    /// Brings adapters into the form that the forward pass takes.
    pub loader: AdapterLoader,
    /// Number of the graph's nodes that each execution provider computes.
    pub nodes: Assignment,
}

/// An open encoder.
pub struct Encoding {
    /// Its forward pass.
    pub session: EncoderSession,
    /// Brings adapters into the form that the forward pass takes.
    pub loader: AdapterLoader,
    /// Number of the graph's nodes that each execution provider computes.
    pub nodes: Assignment,
}

/// Brings adapters into the form and the memory of a backend, while it runs.
#[derive(Debug, Clone)]
pub struct AdapterLoader {
    bundle: Bundle,
    bank: Option<Arc<Bank>>,
}

impl AdapterLoader {
    /// Brings `adapter` into the form that the backend takes, in the memory of the host; its scaling is multiplied by `scale`.
    ///
    /// # Errors
    /// There is no memory, or a value is too large.
    pub fn prepare(&self, adapter: &Adapter, scale: f32) -> Result<HostAdapter, PrepareError> {
        let info = &self.bundle.info;
        match &self.bank {
            Some(bank) => Ok(HostAdapter::Image(bank.image(adapter, scale)?.into())),
            None => Ok(HostAdapter::Packed(pack(adapter, &info.architecture, info.flavour.precision, scale)?.into())),
        }
    }

    /// Puts a prepared adapter into the memory of the backend, while it runs.
    ///
    /// # Errors
    /// The device has no room for it, or failed.
    pub fn place(&self, adapter: &HostAdapter) -> Result<LoadedAdapter, BankError> {
        match (adapter, &self.bank) {
            (HostAdapter::Packed(packed), _) => Ok(LoadedAdapter::Packed(packed.clone())),
            (HostAdapter::Image(image), Some(bank)) => Ok(bank.place(image)?.into()),
            (HostAdapter::Image(_), None) => Err(BankError::NoBank),
        }
    }

    /// Both at once.
    ///
    /// # Errors
    /// Those of [`prepare`](Self::prepare) and [`place`](Self::place).
    pub fn load(&self, adapter: &Adapter, scale: f32) -> Result<LoadedAdapter, PrepareError> {
        Ok(self.place(&self.prepare(adapter, scale)?)?)
    }

    /// Whether adapters can be mapped from a packed file.
    pub fn takes_packed(&self) -> bool {
        self.bank.is_none()
    }

    /// Whether adapters have a form in the memory of the host besides that of the backend.
    pub fn copies(&self) -> bool {
        self.bank.is_some()
    }
}

impl Provider {
    /// What a checkpoint is converted to for it.
    pub fn flavour(self, precision: PrecisionChoice) -> FlavourChoice {
        let (form, activations) = match self {
            Self::Cpu => (Form::Paged, Activations::F32),
            Self::CpuGqa(activations) => (Form::Gqa, activations),
            Self::CpuStandard(activations) => (Form::Standard, activations),
            Self::CpuDelta(activations) => (Form::Delta, activations),
            Self::Cuda(_) => (Form::Gqa, Activations::F16),
            Self::OpenVino { .. } => (Form::Delta, Activations::F32),
        };
        FlavourChoice { form, activations, precision }
    }

    /// The provider whose logits a worker on this one is checked with before it serves: the same graphs on ONNX Runtime's CPU
    /// provider. `None` for those of the CPU provider itself.
    pub fn reference(self) -> Option<Self> {
        match self {
            Self::Cpu | Self::CpuGqa(_) | Self::CpuStandard(_) | Self::CpuDelta(_) => None,
            Self::Cuda(_) => Some(Self::CpuGqa(Activations::F16)),
            Self::OpenVino { .. } => Some(Self::CpuDelta(Activations::F32)),
        }
    }

    /// Positions of a page of keys and values.
    pub fn page(self, context_length: usize) -> usize {
        match self {
            Self::Cpu => PAGE,
            _ => context_length,
        }
    }

    /// Pages for `sequences` of `positions` each, where that is the context.
    pub fn pages_for(self, sequences: usize, positions: usize) -> usize {
        sequences * positions.div_ceil(self.page(positions))
    }

    /// Bytes of a page over all layers.
    pub fn page_bytes(self, bundle: &Bundle, context_length: usize) -> usize {
        let (model, flavour) = (&bundle.info.architecture, bundle.info.flavour);
        match self {
            Self::Cpu => cpu::page_bytes(model, flavour.precision),
            _ => row_bytes(model, flavour.activations, context_length),
        }
    }

    /// Free bytes of the device; `None` for the host's memory.
    ///
    /// # Errors
    /// There is no such device.
    pub fn free_bytes(self) -> Result<Option<u64>, ProviderError> {
        match self {
            Self::Cuda(index) => Ok(Some(cuda::free_bytes(index)?)),
            _ => Ok(None),
        }
    }

    /// Checks that this machine has the devices and libraries that it needs, as far as that shows without a model. Gives the
    /// devices: names, with bytes of memory where they have their own.
    ///
    /// # Errors
    /// Something is missing.
    pub fn devices(self, runtime: &Runtime) -> Result<Vec<(String, Option<u64>)>, ProviderError> {
        match self {
            Self::Cuda(_) => {
                let devices = cuda::devices()?;
                cuda::check_compiler()?;
                register(runtime, CUDA_NAME, &library_beside(runtime.path(), CUDA_LIBRARY)?)?;
                Ok(devices.into_iter().map(|(name, bytes)| (name, Some(bytes))).collect())
            }
            Self::OpenVino { device } => {
                let no = |error: ort::Error| no_openvino(runtime, &error);
                openvino::append(&mut builder(runtime).map_err(no)?, device, 1).map_err(no)?;
                Ok(vec![(device.name().to_owned(), None)])
            }
            Self::Cpu | Self::CpuGqa(_) | Self::CpuStandard(_) | Self::CpuDelta(_) => {
                Ok(vec![("CPU".to_owned(), None)])
            }
        }
    }

    /// Opens the bundle's graph of whole texts. `None` if this provider has no such graphs.
    ///
    /// # Errors
    /// The context is too long, or ONNX Runtime refuses the graph.
    pub fn open_encoder(
        self,
        runtime: &Runtime,
        bundle: &Bundle,
        config: EncoderConfig,
        table: Arc<AdapterTable>,
    ) -> Result<Option<Encoding>, SessionError> {
        if self != Self::Cpu {
            return Ok(None);
        }
        let session = EncoderSession::open(runtime, bundle, config, table)?;
        let nodes = session.nodes()?;
        Ok(Some(Encoding { session, loader: AdapterLoader { bundle: bundle.clone(), bank: None }, nodes }))
    }

    /// Opens the bundle's graph, converted for this provider. Adapters are looked up in `table` by the slots of each step.
    ///
    /// # Errors
    /// The provider cannot be used, the context is too long, there is too little memory, or ONNX Runtime refuses the graph.
    pub fn open(
        self,
        runtime: &Runtime,
        bundle: &Bundle,
        config: SessionConfig,
        room: AdapterRoom,
        table: Arc<AdapterTable>,
    ) -> Result<Opened, SessionError> {
        let loader = |bank| AdapterLoader { bundle: bundle.clone(), bank };
        let activations = bundle.info.flavour.activations;
        let adapters = Arc::new(AtomicBool::new(false));
        let (device, session): (Arc<dyn Device>, _) = match self {
            Self::Cpu => {
                let backend = DecoderSession::open(runtime, bundle, config, table)?;
                let nodes = backend.nodes()?;
                return Ok(Opened { backend: Box::new(backend), loader: loader(None), nodes });
            }
            Self::CpuGqa(_) | Self::CpuStandard(_) | Self::CpuDelta(_) => {
                let operators = bank_add::host_domain(activations)?;
                (Arc::new(Host { selects: true }), cpu_session(runtime, bundle, operators, config.threads)?)
            }
            Self::Cuda(index) => {
                let gpu = Arc::new(Cuda::open(index)?);
                let operators = cuda::domain(&gpu, run_tokens(config.pages), room.rank_max, adapters.clone())?;
                (gpu, cuda_session(runtime, bundle, operators, index)?)
            }
            Self::OpenVino { device } => {
                (Arc::new(Host { selects: false }), openvino_session(runtime, bundle, device, config.threads)?)
            }
        };
        let model = &bundle.info.architecture;
        // Room for two more: a replaced version stays until its last request ends.
        let bank = Arc::new(Bank::new(&device, model, activations, (room.slots + 2) * room.rank_max)?);
        let captures = matches!(self, Self::Cuda(_));
        let nodes = assignment::of(&session)?;
        let rows = RowsSession::new(session, bundle, config, (device, captures), (bank.clone(), adapters), table);
        let mut backend = rows?;
        backend.warm_up()?;
        Ok(Opened { backend: Box::new(backend), loader: loader(Some(bank)), nodes })
    }
}

fn cpu_session(
    runtime: &Runtime,
    bundle: &Bundle,
    operators: OperatorDomain,
    threads: usize,
) -> Result<Session, SessionError> {
    let builder = builder(runtime)?.with_intra_threads(threads).map_err(plain)?;
    let builder = builder.with_operators(operators).map_err(plain)?;
    // Left to itself, it would round activations to 8 bits where weights have 4.
    let exact = builder.with_config_entry("session.qdq_matmulnbits_accuracy_level", "1");
    commit(&mut exact.map_err(plain)?, bundle)
}

fn cuda_session(
    runtime: &Runtime,
    bundle: &Bundle,
    operators: OperatorDomain,
    index: usize,
) -> Result<Session, SessionError> {
    register(runtime, CUDA_NAME, &library_beside(runtime.path(), CUDA_LIBRARY)?)?;
    let listed: Vec<_> = runtime.environment.devices().map(|device| (device.ep().unwrap_or("?"), device)).collect();
    let names: Vec<&str> = listed.iter().map(|(name, _)| *name).collect();
    let not_listed = ProviderError::NotListed { name: CUDA_NAME, index, listed: names.join(", ") };
    let mut devices = listed.into_iter().filter(|(name, _)| *name == CUDA_NAME);
    let (_, device) = devices.nth(index).ok_or(not_listed)?;
    let option = |key: &str, value: &str| (format!("{CUDA_NAME}.{key}"), value.to_owned());
    let options = [option("enable_cuda_graph", "1"), option("use_tf32", "0")];
    let _alone = cuda::alone();
    let builder = builder(runtime)?.with_disable_cpu_fallback().map_err(plain)?;
    let builder = builder.with_operators(operators).map_err(plain)?;
    let mut builder = builder.with_devices([device], Some(&options)).map_err(plain)?;
    commit(&mut builder, bundle)
}

fn openvino_session(
    runtime: &Runtime,
    bundle: &Bundle,
    device: OpenVinoDevice,
    threads: usize,
) -> Result<Session, SessionError> {
    // Without this, what OpenVINO does not take would be computed elsewhere, and nobody would know.
    let builder = builder(runtime)?.with_disable_cpu_fallback().map_err(plain)?;
    let mut builder = builder.with_intra_threads(1).map_err(plain)?;
    openvino::append(&mut builder, device, threads).map_err(|error| no_openvino(runtime, &error))?;
    commit(&mut builder, bundle)
}

fn no_openvino(runtime: &Runtime, error: &ort::Error) -> ProviderError {
    ProviderError::NoOpenVino { path: runtime.path().to_owned(), error: error.to_string() }
}

/// The file of that name in the folder of ONNX Runtime's library.
fn library_beside(runtime: &Path, name: &str) -> Result<PathBuf, ProviderError> {
    let path = runtime.with_file_name(name);
    if path.is_file() { Ok(path) } else { Err(ProviderError::NoLibrary { path }) }
}

/// Registers the library of a provider, once for each process.
fn register(runtime: &Runtime, name: &'static str, path: &Path) -> Result<(), ProviderError> {
    static REGISTERED: Mutex<Vec<&str>> = Mutex::new(Vec::new());
    let mut registered = REGISTERED.lock().unwrap_or_else(PoisonError::into_inner);
    if registered.contains(&name) {
        return Ok(());
    }
    let failed = |error: ort::Error| ProviderError::Library { path: path.to_owned(), error: error.to_string() };
    runtime.environment.register_ep_library(name, path).map_err(failed)?;
    registered.push(name);
    Ok(())
}
