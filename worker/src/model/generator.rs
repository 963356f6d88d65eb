//! A model that generates text: its engine, and what turns text into tokens and back.

use std::{sync::Arc, thread::JoinHandle, time::Duration};

use slm_convert::{bundle::Bundle, generation::EndToken};
use slm_pool::{Priority, with_priority};

use super::{
    Common, Model, ModelError, ModelOptions, UNREAD_PER_SEQUENCE, Work, available_threads, context_length, memory_limit,
};
use crate::{
    adapters::Adapters,
    admit::Limits,
    constrain::Constraints,
    engine::{Engine, EngineConfig},
    runtime::{AdapterRoom, Opened, Provider, Runtime, SelfCheck, SessionConfig, TOKENS_MAX, state_bytes},
    service::token_bytes_max,
    text::{Prompter, TokenBytes},
};

/// Bound on drafted tokens of a step over all sequences: each takes a row of logits.
const DRAFTED_MAX: usize = 24;

/// Upper bound of the duration of a step while any sequence decodes: prefill is chunked to stay below it.
const STEP_MAX: Duration = Duration::from_millis(100);

/// What generates text.
#[derive(Debug)]
pub struct Generator {
    /// Handle of the engine.
    pub engine: Engine,
    /// Tokenizer and chat template.
    pub prompter: Prompter,
    /// Bytes of each token; `None` without a tokenizer.
    pub token_bytes: Option<Arc<TokenBytes>>,
    /// Most bytes of a token; `None` without a tokenizer.
    pub token_bytes_max: Option<usize>,
    /// Compiles constraints on answers; `None` without a tokenizer.
    pub constraints: Option<Arc<Constraints>>,
    /// Bounds on requests.
    pub limits: Limits,
}

/// Opens the bundle's session and starts the engine.
pub(super) fn open(
    options: &ModelOptions,
    runtime: &Runtime,
    bundle: Bundle,
) -> Result<(Model, JoinHandle<()>), ModelError> {
    let context_length = context_length(options, &bundle);
    let pages = pages(options, &bundle, context_length)?;
    let threads = options.threads.unwrap_or_else(available_threads);
    let drafted = if options.prompt_lookup { DRAFTED_MAX } else { 0 };
    let logits = (options.sequences_max + drafted).min(TOKENS_MAX);
    let sequences = options.sequences_max;
    let config = SessionConfig { context_length, pages, sequences, logits, threads };
    // Every request may hold another replaced version.
    let adapters =
        Adapters::new(options.adapter_slots, options.sequences_max + options.queue_max + 1, options.adapter_host_bytes);
    let room = AdapterRoom { slots: options.adapter_slots, rank_max: options.adapter_rank_max };
    let Opened { backend, loader, nodes } = session(options.provider, runtime, &bundle, config, room, &adapters)?;
    let geometry = backend.geometry();
    let cache_bytes = (options.provider.page_bytes(&bundle, context_length) * pages) as u64;
    let state_bytes = (state_bytes(&bundle.info.architecture) * geometry.states) as u64;
    let config = EngineConfig {
        sequences_max: options.sequences_max,
        queue_max: options.queue_max,
        unread_max: options.unread_max.unwrap_or(UNREAD_PER_SEQUENCE * options.sequences_max),
        prefix_pages: if options.prefix_cache { pages } else { 0 },
        prompt_lookup: options.prompt_lookup,
        step_max: STEP_MAX,
    };
    let (engine, thread) = Engine::start(backend, config).map_err(ModelError::Thread)?;
    let prompter = Prompter::new(&bundle)?;
    let ends = &bundle.info.generation.eos_token_ids;
    let token_bytes = prompter.tokenizer().map(|tokenizer| Arc::new(TokenBytes::new(tokenizer, ends)));
    let token_bytes_max =
        token_bytes.as_deref().zip(prompter.tokenizer()).map(|(bytes, tokenizer)| token_bytes_max(bytes, tokenizer));
    let constraints = token_bytes.clone().map(|bytes| Arc::new(Constraints::new(bytes, geometry.vocab_size)));
    tell_ends(&options.name, &bundle.info.generation.ends);
    let limits = Limits {
        model: options.name.clone(),
        context_length,
        vocabulary: geometry.vocab_size,
        defaults: bundle.info.generation.clone(),
    };
    let generator = Generator { engine, prompter, token_bytes, token_bytes_max, constraints, limits };
    let buffers = [cache_bytes, state_bytes, geometry.logits_bytes() as u64];
    let common = Common { bundle, adapters, loader, nodes, buffers };
    Ok((Model::new(options, common, Work::Generate(Box::new(generator)))?, thread))
}

/// Pages of the KV cache for `options`.
fn pages(options: &ModelOptions, bundle: &Bundle, context_length: usize) -> Result<usize, ModelError> {
    let page = options.provider.page_bytes(bundle, context_length);
    let [one, all] = [1, options.sequences_max].map(|sequences| options.provider.pages_for(sequences, context_length));
    match options.kv_cache_bytes {
        // No layer attends.
        _ if page == 0 => Ok(all),
        Some(bytes) => {
            let pages = usize::try_from(bytes).unwrap_or(usize::MAX) / page;
            let needed = (one * page) as u64;
            if pages < one { Err(ModelError::KvCache { bytes, context_length, needed }) } else { Ok(pages) }
        }
        None => {
            let limit = options.provider.free_bytes()?.unwrap_or_else(memory_limit);
            Ok(all.min((limit / 2) as usize / page).max(one))
        }
    }
}

/// Logs the end-of-sequence tokens and their origin.
fn tell_ends(model: &str, ends: &[EndToken]) {
    let ends: Vec<String> = ends.iter().map(|end| format!("{} {:?} ({})", end.id, end.token, end.named_by)).collect();
    if ends.is_empty() {
        tracing::warn!(model, "no token ends an answer: give max_tokens or stop");
    } else {
        tracing::info!(model, ends = ends.join(", "), "tokens that end an answer");
    }
}

/// Opens the session and checks it where its provider asks for that.
fn session(
    provider: Provider,
    runtime: &Runtime,
    bundle: &Bundle,
    config: SessionConfig,
    room: AdapterRoom,
    adapters: &Adapters,
) -> Result<Opened, ModelError> {
    // The sessions start the compute threads.
    with_priority(Priority::Compute, || {
        let check = SelfCheck::prepare(provider, runtime, bundle, config, room)?;
        let mut opened = provider.open(runtime, bundle, config, room, adapters.table())?;
        if let Some(check) = check {
            let difference = check.compare(&mut *opened.backend, &opened.loader, &adapters.table())?;
            tracing::info!(difference, nodes = ?opened.nodes, "the self-check passed");
        }
        Ok(opened)
    })
}
