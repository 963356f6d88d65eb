//! Target modules with rank and scale, by PEFT's rules (`check_target_module_exists` and
//! `LoraModel._create_and_replace`).

use std::collections::{BTreeMap, BTreeSet};

use super::AdapterError;
use super::config::{Layers, LoraConfig, Selection};
use crate::architecture::{Architecture, Mixer, Norm, Place, Residual};
use crate::pattern::{Pattern, PatternError};

/// Rank and scale of one pair.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Target {
    pub(super) rank: usize,
    pub(super) scaling: f32,
}

pub(super) type Targets = BTreeMap<Place, Target>;

/// Applies the configuration to the modules of the base.
pub(super) fn resolve(config: &LoraConfig, base: &Architecture) -> Result<Targets, AdapterError> {
    let target_error = |problem: String| AdapterError::Target { file: config.file.clone(), problem };
    let known = || base.linear_names().join(", ");
    for name in others(base) {
        if !is_match(config, &config.exclude, &name)? && config.targets_by_name(&name)? {
            return Err(target_error(format!("`{name}` cannot be adapted; what can be: {}", known())));
        }
    }
    let mut targets = Targets::new();
    let mut paths = Vec::new();
    for (place, linear) in base.linears() {
        let path = linear.name.within(&base.prefix(place.0)).hf;
        if config.selects(&path)? {
            targets.insert(place, config.target(&path)?);
        }
        paths.push(path);
    }
    if targets.is_empty() {
        let problem = match unmatched(config, &paths).as_slice() {
            [] => "together with the other settings it selects no module of this base model".to_owned(),
            names => format!(
                "`{}` is no module of this base model, which has {} layers with {}",
                names.join("`, `"),
                base.layers.len(),
                known()
            ),
        };
        return Err(target_error(problem));
    }
    Ok(targets)
}

/// Names in `target_modules` that match no module. As in PEFT they are ignored if another one matches.
fn unmatched<'c>(config: &'c LoraConfig, paths: &[String]) -> Vec<&'c str> {
    let Selection::Names(names) = &config.targets else { return Vec::new() };
    let unmatched = names.iter().filter(|name| !paths.iter().any(|path| names_module(name, path)));
    unmatched.map(String::as_str).collect()
}

/// Modules of the base other than the linear layers of decoder layers. They cannot be adapted.
fn others(base: &Architecture) -> BTreeSet<String> {
    let mut names: BTreeSet<String> = match &base.encoder {
        None => ["model", "model.layers", "model.rotary_emb"].map(str::to_owned).into(),
        Some(encoder) => {
            let rows = encoder.positions.iter().chain(&encoder.token_types).map(|rows| &rows.name);
            let norm = encoder.embedding_norm.iter().map(|norm| &norm.name);
            rows.chain(norm)
                .map(|name| name.hf.clone())
                .chain([base.layers_begin.trim_end_matches('.').to_owned()])
                .collect()
        }
    };
    names.extend([&base.embedding, &base.head.name].map(|name| name.hf.clone()));
    names.extend(base.final_norm.iter().map(|norm| norm.name.hf.clone()));
    if let Some(inputs) = &base.layer_inputs {
        names.extend([&inputs.embedding, &inputs.norm.name].map(|name| name.hf.clone()));
    }
    for (index, layer) in base.layers.iter().enumerate() {
        let prefix = base.layer_prefix(index);
        let mut add = |name: &str| names.insert(format!("{}{name}", prefix.hf).trim_end_matches('.').to_owned());
        add("");
        for linear in layer.linears() {
            if let Some((block, _)) = linear.name.hf.rsplit_once('.') {
                add(block);
            }
        }
        add("mlp.act_fn");
        if let Some(experts) = &layer.feed_forward.experts {
            add(&experts.router.hf);
            add(&experts.prefix);
        }
        let norms: Vec<&Norm> = match &layer.residual {
            Residual::Sequential { attention, feed_forward } => {
                [&attention.pre, &attention.post, &feed_forward.pre, &feed_forward.post].into_iter().flatten().collect()
            }
            Residual::Parallel { norm } => vec![norm],
            Residual::Normed { attention, feed_forward } => vec![attention, feed_forward],
        };
        let of_mixer: Vec<&Norm> = match &layer.mixer {
            Mixer::Attention(attention) => {
                if attention.value_norm.is_some() {
                    add("self_attn.v_norm");
                }
                attention.qk_norm.iter().flat_map(|norms| [&norms.q, &norms.k]).collect()
            }
            Mixer::ShortConvolution(of) => {
                add(&of.convolution.hf);
                Vec::new()
            }
            Mixer::DeltaRule(of) => {
                add(&of.convolution.hf);
                vec![&of.norm]
            }
        };
        norms.into_iter().chain(of_mixer).chain(layer.input.as_ref().map(|input| &input.norm)).for_each(|norm| {
            add(&norm.name.hf);
        });
    }
    names
}

fn names_module(name: &str, path: &str) -> bool {
    path.strip_suffix(name).is_some_and(|before| before.is_empty() || before.ends_with('.'))
}

impl LoraConfig {
    /// Whether PEFT would adapt that projection.
    fn selects(&self, path: &str) -> Result<bool, AdapterError> {
        if is_match(self, &self.exclude, path)? || !self.targets_projection(path)? {
            return Ok(false);
        }
        match (&self.targets, &self.layers) {
            // A module given by its full name is selected whatever the layers.
            (Selection::Names(names), Some(layers)) if !names.iter().any(|name| name == path) => {
                self.in_layers(layers, path)
            }
            _ => Ok(true),
        }
    }

    fn targets_projection(&self, path: &str) -> Result<bool, AdapterError> {
        match &self.targets {
            Selection::AllLinear => Ok(true),
            _ => self.targets_by_name(path),
        }
    }

    fn targets_by_name(&self, path: &str) -> Result<bool, AdapterError> {
        match &self.targets {
            Selection::AllLinear => Ok(false),
            Selection::Pattern(pattern) => self.matches(pattern, "target_modules", path),
            Selection::Names(names) => Ok(names.iter().any(|name| names_module(name, path))),
        }
    }

    fn in_layers(&self, layers: &Layers, path: &str) -> Result<bool, AdapterError> {
        for pattern in &layers.patterns {
            let found = pattern.group("idx", path, self.budget);
            let found = found.map_err(|error| self.failed(pattern, "layers_pattern", &error))?;
            if let Some(index) = found.and_then(|index| index.parse::<usize>().ok()) {
                return Ok(layers.indices.contains(&index));
            }
        }
        Ok(false)
    }

    /// Rank and scale of a module: of the first matching pattern, or the adapter's own.
    pub(super) fn target(&self, path: &str) -> Result<Target, AdapterError> {
        let rank = self.first_match(&self.rank_pattern, "rank_pattern", path)?.unwrap_or(self.rank);
        let alpha = self.first_match(&self.alpha_pattern, "alpha_pattern", path)?.unwrap_or(self.alpha);
        let divisor = if self.use_rslora { (rank as f64).sqrt() } else { rank as f64 };
        Ok(Target { rank, scaling: (alpha / divisor) as f32 })
    }

    fn first_match<T: Copy>(
        &self,
        patterns: &[(Pattern, T)],
        field: &str,
        path: &str,
    ) -> Result<Option<T>, AdapterError> {
        for (pattern, value) in patterns {
            if self.matches(pattern, field, path)? {
                return Ok(Some(*value));
            }
        }
        Ok(None)
    }

    fn matches(&self, pattern: &Pattern, field: &str, path: &str) -> Result<bool, AdapterError> {
        pattern.is_match(path, self.budget).map_err(|error| self.failed(pattern, field, &error))
    }

    fn failed(&self, pattern: &Pattern, field: &str, error: &PatternError) -> AdapterError {
        AdapterError::Pattern {
            file: self.file.clone(),
            field: field.to_owned(),
            pattern: pattern.as_str().to_owned(),
            problem: error.to_string(),
        }
    }
}

/// Whether an optional selection, such as `exclude_modules`, matches that module.
fn is_match(config: &LoraConfig, selection: &Option<Selection>, path: &str) -> Result<bool, AdapterError> {
    match selection {
        None | Some(Selection::AllLinear) => Ok(false),
        Some(Selection::Pattern(pattern)) => config.matches(pattern, "exclude_modules", path),
        Some(Selection::Names(names)) => Ok(names.iter().any(|name| names_module(name, path))),
    }
}
