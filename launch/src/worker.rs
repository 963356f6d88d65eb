//! The command line of `slm worker`.

use std::{ffi::OsString, net::SocketAddr, path::PathBuf, time::Duration};

use clap::{ArgAction, Args, ValueEnum};
use slm_crds::{SlmModelSpec, model};

use crate::{
    provider::ExecutionProvider,
    store::StoreArgs,
    units::{address, duration, written},
};

/// Default memory for adapters that are in no slot, as in `spec.adapters.hostCacheBytes`.
const ADAPTER_HOST_CACHE_BYTES: u64 = 256 << 20;

/// Launch options of a worker.
#[derive(Args, Clone, Debug, PartialEq)]
pub struct WorkerLaunch {
    /// Name that requests use for the model.
    #[arg(long)]
    pub name: String,
    /// A GGUF file, or a Hugging Face folder with config.json and safetensors; or where to fetch one, such as
    /// oci://REGISTRY/REPOSITORY:TAG, hf://ORG/REPO, s3://BUCKET/PATH, https://… or pvc://CLAIM/PATH.
    #[arg(long, value_name = "PATH_OR_URI")]
    pub model: String,
    /// Refuse a model that has another digest than this.
    #[arg(long, value_name = "sha256:…")]
    pub digest: Option<String>,
    /// Folder with what the registry or server of the model asks for, as a Secret is mounted: .dockerconfigjson, or token,
    /// or username and password.
    #[arg(long, value_name = "DIR")]
    pub credentials: Option<PathBuf>,
    /// What the worker does.
    #[arg(long, value_enum, default_value_t, ignore_case = true)]
    pub task: Task,
    /// Precision of the weights in memory.
    #[arg(long, value_enum, default_value_t, ignore_case = true)]
    pub precision: Precision,
    /// Longest sequence in tokens, prompt and answer together [default: the model's own, at most 4096].
    #[arg(long, value_name = "TOKENS")]
    pub context_length: Option<u32>,
    /// Sequences that are generated at once.
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=256))]
    pub max_sequences: u32,
    /// Bytes of keys and values at most [default: room for --max-sequences of --context-length, but no more than half of the
    /// memory that this process may use].
    #[arg(long, value_name = "BYTES")]
    pub kv_cache_bytes: Option<u64>,
    /// Prefix cache: keep the keys and values of prompts for later requests that begin alike.
    #[arg(long, value_name = "BOOL", default_value_t = true, action = ArgAction::Set)]
    pub prefix_cache: bool,
    /// Method of speculative decoding.
    #[arg(long, value_name = "METHOD", value_enum, default_value_t, ignore_case = true)]
    pub speculative: Speculative,
    /// Requests that may wait in the queue; the next is refused.
    #[arg(long, value_name = "N", default_value_t = 256)]
    pub queue: u32,
    /// Answers that may be complete and not read yet, besides those that run or wait [default: four for each of
    /// --max-sequences].
    #[arg(long, value_name = "N")]
    pub unread: Option<u32>,
    /// Threads that compute [default: all that this process may use].
    #[arg(long, value_name = "N", env = "SLM_THREADS")]
    pub threads: Option<u32>,
    /// Adapters that running requests may use at a time.
    #[arg(long, value_name = "N", default_value_t = 16)]
    pub adapter_slots: u32,
    /// Memory for adapters that are in no slot.
    #[arg(long, value_name = "BYTES", default_value_t = ADAPTER_HOST_CACHE_BYTES)]
    pub adapter_host_cache_bytes: u64,
    /// Largest rank of an adapter.
    #[arg(long, value_name = "RANK", default_value_t = 64)]
    pub adapter_max_rank: u32,
    /// Execution provider of ONNX Runtime.
    #[arg(long, value_name = "PROVIDER", value_enum, default_value_t, ignore_case = true)]
    pub execution_provider: ExecutionProvider,
    /// The artifact cache.
    #[command(flatten)]
    pub store: StoreArgs,
    /// Address of the gRPC endpoint; port 0: any.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:0", value_parser = address)]
    pub listen: SocketAddr,
    /// Folder with ca.crt, tls.crt and tls.key of its swarm, followed: only operator and routers of the swarm get in. Without
    /// it the gRPC endpoint is plain and open.
    #[arg(long, value_name = "DIR", env = "SLM_TLS_DIR")]
    pub tls: Option<PathBuf>,
    /// Address of /healthz, /readyz and /metrics over HTTP; none without it.
    #[arg(long, value_name = "ADDRESS", value_parser = address)]
    pub probes: Option<SocketAddr>,
    /// Time for running answers to finish after a shutdown was requested.
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = duration)]
    pub drain: Duration,
    /// Time without reading after which a caller's answer is ended.
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = duration)]
    pub read_timeout: Duration,
    /// Longest time to load an adapter, fetching included.
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = duration)]
    pub load_timeout: Duration,
    /// End when standard input ends.
    #[arg(long)]
    pub follow_stdin: bool,
}

/// What a worker does with its model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "PascalCase")]
pub enum Task {
    /// Continue text.
    #[default]
    Generate,
    /// Turn texts into vectors.
    Embed,
    /// Score documents for a query.
    Rerank,
    /// Give texts labels.
    Classify,
}

/// Precision of the weights in memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "PascalCase")]
pub enum Precision {
    /// Int4 when the file's own weights have 4 bits, Int8 when they have 5 to 8, else F32, or F16 on a GPU.
    #[default]
    Auto,
    /// 32-bit floats.
    F32,
    /// 16-bit floats, on GPUs.
    F16,
    /// 4-bit integers.
    Int4,
    /// 8-bit integers.
    Int8,
}

/// Method of speculative decoding.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "PascalCase")]
pub enum Speculative {
    /// Prompt lookup: drafts the tokens that followed the same n-gram earlier, in prompt or answer.
    #[default]
    PromptLookup,
    /// None: one token a step.
    Off,
}

impl From<model::Task> for Task {
    fn from(task: model::Task) -> Self {
        match task {
            model::Task::Generate => Self::Generate,
            model::Task::Embed => Self::Embed,
            model::Task::Rerank => Self::Rerank,
            model::Task::Classify => Self::Classify,
        }
    }
}

impl From<model::Precision> for Precision {
    fn from(precision: model::Precision) -> Self {
        match precision {
            model::Precision::Auto => Self::Auto,
            model::Precision::F32 => Self::F32,
            model::Precision::F16 => Self::F16,
            model::Precision::Int4 => Self::Int4,
            model::Precision::Int8 => Self::Int8,
        }
    }
}

impl From<model::SpeculativeMethod> for Speculative {
    fn from(method: model::SpeculativeMethod) -> Self {
        match method {
            model::SpeculativeMethod::PromptLookup => Self::PromptLookup,
            model::SpeculativeMethod::Off => Self::Off,
        }
    }
}

impl WorkerLaunch {
    /// A worker of `model`, a path or a URI, with everything else as `slm worker` has it by default.
    #[must_use]
    pub fn new(name: impl Into<String>, model: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            model: model.into(),
            digest: None,
            credentials: None,
            task: Task::Generate,
            precision: Precision::Auto,
            context_length: None,
            max_sequences: 8,
            kv_cache_bytes: None,
            prefix_cache: true,
            speculative: Speculative::PromptLookup,
            queue: 256,
            unread: None,
            threads: None,
            adapter_slots: 16,
            adapter_host_cache_bytes: ADAPTER_HOST_CACHE_BYTES,
            adapter_max_rank: 64,
            execution_provider: ExecutionProvider::Cpu,
            store: StoreArgs::default(),
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            tls: None,
            probes: None,
            drain: Duration::from_secs(30),
            read_timeout: Duration::from_secs(60),
            load_timeout: Duration::from_secs(600),
            follow_stdin: false,
        }
    }

    /// A worker of the SlmModel `name`, as its spec says. What only the place decides in which it runs is as in
    /// [`new`](Self::new).
    #[must_use]
    pub fn of(name: impl Into<String>, spec: &SlmModelSpec) -> Self {
        let runtime = &spec.runtime;
        Self {
            digest: spec.source.digest.clone(),
            task: spec.task.into(),
            precision: runtime.precision.into(),
            context_length: runtime.context_length,
            max_sequences: runtime.max_sequences,
            // The schema's lower bound is far above zero.
            kv_cache_bytes: runtime.kv_cache.bytes.and_then(|bytes| u64::try_from(bytes).ok()),
            prefix_cache: runtime.prefix_cache,
            speculative: runtime.speculative.method.into(),
            threads: runtime.threads,
            adapter_slots: spec.adapters.slots,
            // The schema's lower bound is zero.
            adapter_host_cache_bytes: u64::try_from(spec.adapters.host_cache_bytes).unwrap_or_default(),
            adapter_max_rank: spec.adapters.max_rank,
            drain: Duration::from_secs(spec.rollout.drain_timeout_seconds.into()),
            ..Self::new(name, spec.source.uri.clone())
        }
    }

    /// The arguments of the binary, beginning with the command `worker`. Read again, they are this launch, but for what is
    /// unset here and has a variable in the environment of the process.
    #[must_use]
    pub fn to_args(&self) -> Vec<OsString> {
        let mut arguments: Vec<OsString> = vec!["worker".into()];
        if self.follow_stdin {
            arguments.push("--follow-stdin".into());
        }
        let mut flag = |name: &str, value: OsString| {
            let mut argument = OsString::from(format!("--{name}="));
            argument.push(value);
            arguments.push(argument);
        };
        flag("name", self.name.clone().into());
        flag("model", self.model.clone().into());
        let texts = [("digest", self.digest.clone().map(OsString::from))];
        let paths = [("credentials", &self.credentials), ("tls", &self.tls)];
        let paths = paths.map(|(name, path)| (name, path.clone().map(OsString::from)));
        let numbers = [
            ("context-length", self.context_length.map(u64::from)),
            ("kv-cache-bytes", self.kv_cache_bytes),
            ("threads", self.threads.map(u64::from)),
            ("unread", self.unread.map(u64::from)),
        ];
        let numbers = numbers.map(|(name, number)| (name, number.map(|number| OsString::from(number.to_string()))));
        for (name, value) in texts.into_iter().chain(paths).chain(numbers) {
            if let Some(value) = value {
                flag(name, value);
            }
        }
        self.store.write(&mut flag);
        flag("listen", self.listen.to_string().into());
        if let Some(probes) = self.probes {
            flag("probes", probes.to_string().into());
        }
        for (name, time) in
            [("drain", self.drain), ("read-timeout", self.read_timeout), ("load-timeout", self.load_timeout)]
        {
            flag(name, written(time).into());
        }
        flag("task", value(self.task));
        flag("precision", value(self.precision));
        flag("max-sequences", self.max_sequences.to_string().into());
        flag("adapter-slots", self.adapter_slots.to_string().into());
        flag("adapter-host-cache-bytes", self.adapter_host_cache_bytes.to_string().into());
        flag("adapter-max-rank", self.adapter_max_rank.to_string().into());
        flag("prefix-cache", self.prefix_cache.to_string().into());
        flag("speculative", value(self.speculative));
        flag("queue", self.queue.to_string().into());
        flag("execution-provider", value(self.execution_provider));
        arguments
    }
}

/// As the command line spells it. No value of ours is hidden from it.
fn value(of: impl ValueEnum) -> OsString {
    of.to_possible_value().map(|value| OsString::from(value.get_name())).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use clap::{
        Arg, Command, FromArgMatches as _,
        builder::{OsStr, Resettable},
    };
    use proptest::{option, prelude::*};

    use super::*;
    use crate::store::CacheArgs;

    /// As `slm worker` reads them, in an environment without any variable of ours.
    fn read(arguments: &[OsString]) -> Result<WorkerLaunch, clap::Error> {
        let command = WorkerLaunch::augment_args(Command::new("worker"));
        let command = command.mut_args(|arg: Arg| arg.env(Resettable::<OsStr>::Reset));
        WorkerLaunch::from_arg_matches(&command.try_get_matches_from(arguments)?)
    }

    #[test]
    fn defaults_are_those_of_the_command_line() {
        let arguments = ["worker", "--name=smol", "--model=smol.gguf"].map(OsString::from);
        assert_eq!(read(&arguments).expect("read"), WorkerLaunch::new("smol", "smol.gguf"));
    }

    #[test]
    fn a_flag_that_no_worker_has_is_refused() {
        let mut arguments = WorkerLaunch::new("smol", "smol.gguf").to_args();
        arguments.push("--provider-option=trt_fp16_enable=1".into());
        assert!(read(&arguments).is_err());
    }

    #[cfg(unix)]
    #[test]
    fn a_path_is_any_path() {
        use std::os::unix::ffi::OsStringExt as _;
        let cache = Some(PathBuf::from(OsString::from_vec(vec![b'/', 0xff])));
        let store = StoreArgs { cache: CacheArgs { cache }, ..StoreArgs::default() };
        let launch = WorkerLaunch { store, ..WorkerLaunch::new("smol", "smol.gguf") };
        assert_eq!(read(&launch.to_args()).expect("read"), launch);
    }

    fn path() -> impl Strategy<Value = Option<PathBuf>> {
        option::of("[ -~]{1,12}".prop_map(PathBuf::from))
    }

    fn store() -> impl Strategy<Value = StoreArgs> {
        let hosts = prop::collection::vec("[a-z0-9.:-]{1,12}", 0..3);
        let hub = prop::sample::select(vec![crate::HUB_ENDPOINT, "http://mirror:8080"]);
        let s3 = option::of("https://[a-z]{1,8}:9000");
        let paths = (path(), path(), path());
        (paths, option::of(1_u64..), hosts, hub, s3).prop_map(
            |((cache, pvc, ca_file), artifacts_max, hosts, hub, s3)| StoreArgs {
                cache: CacheArgs { cache },
                artifacts_max,
                pvc_root: pvc.unwrap_or_else(|| crate::PVC_ROOT.into()),
                insecure_host: hosts,
                ca_file,
                hub_endpoint: hub.to_owned(),
                s3_endpoint: s3,
            },
        )
    }

    prop_compose! {
        fn launch()(
            name in "[a-z][a-z0-9-]{0,8}",
            model in "[ -~]{1,20}",
            digest in option::of("sha256:[0-9a-f]{4}"),
            (credentials, tls) in (path(), path()),
            task in prop::sample::select(Task::value_variants()),
            precision in prop::sample::select(Precision::value_variants()),
            speculative in prop::sample::select(Speculative::value_variants()),
            [context_length, threads, unread] in prop::array::uniform3(option::of(any::<u32>())),
            (max_sequences, queue) in (1_u32..=256, any::<u32>()),
            (adapter_slots, adapter_max_rank) in (any::<u32>(), any::<u32>()),
            (kv_cache_bytes, adapter_host_cache_bytes) in (option::of(any::<u64>()), any::<u64>()),
            (prefix_cache, follow_stdin) in any::<(bool, bool)>(),
            store in store(),
            (listen, probes) in (any::<SocketAddr>(), option::of(any::<SocketAddr>())),
            [drain, read_timeout, load_timeout] in
                prop::array::uniform3((0_u64..4_000_000).prop_map(Duration::from_millis)),
        ) -> WorkerLaunch {
            WorkerLaunch {
                name, model, digest, credentials, task, precision, context_length, max_sequences, kv_cache_bytes,
                prefix_cache, speculative, queue, unread, threads, adapter_slots, adapter_host_cache_bytes,
                adapter_max_rank,
                execution_provider: ExecutionProvider::Cpu, store, listen, tls, probes, drain, read_timeout, load_timeout,
                follow_stdin,
            }
        }
    }

    /// An address is written without its flow and scope, which no socket of ours has.
    fn plain(address: SocketAddr) -> SocketAddr {
        SocketAddr::new(address.ip(), address.port())
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(launch in launch()) {
            let launch =
                WorkerLaunch { listen: plain(launch.listen), probes: launch.probes.map(plain), ..launch };
            let arguments = launch.to_args();
            prop_assert_eq!(read(&arguments).map_err(|error| TestCaseError::fail(error.to_string()))?, launch);
        }
    }
}
