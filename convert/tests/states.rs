//! Models whose layers have states: what adapters may change, and where graphs are refused.
#![allow(clippy::unwrap_used)] // helpers of tests say what they expect, as tests do

mod support;

use serde_json::json;
use slm_convert::{
    Checkpoint,
    graph::{self, Activations, Flavour, Form, Precision},
    peft::Adapter,
};
use support::{assert_says, base, copy, edit, parity};

/// Families with a module of a convolution each.
const FAMILIES: [(&str, &str); 2] = [("lfm2-conv", "conv.conv"), ("qwen3_5", "linear_attn.conv1d")];

#[test]
fn adapters_change_the_projections_around_a_state_and_not_its_convolution() {
    for (family, convolution) in FAMILIES {
        let adapter = parity().join(family).join("adapters/r4-all");
        let loaded = Adapter::open(&adapter, &base(family)).unwrap();
        assert_eq!(loaded.pairs.len(), base(family).linears().count(), "{family}: every linear layer");
        let changed = copy(&adapter);
        let module = convolution.rsplit('.').next().unwrap();
        edit(&changed.path().join("adapter_config.json"), &json!({"target_modules": ["q_proj", module]}));
        let message = Adapter::open(changed.path(), &base(family)).unwrap_err().to_string();
        assert_says(&message, &["model.layers.0.", module, "cannot be adapted", "out_proj"]);
    }
}

#[test]
fn graphs_for_accelerators_are_refused_by_name() {
    for (family, part) in [("lfm2-conv", "short convolutions"), ("qwen3_5", "linear attention")] {
        let checkpoint = Checkpoint::open(&parity().join(family)).unwrap();
        for form in [Form::Gqa, Form::Standard, Form::Delta] {
            let flavour = Flavour { form, precision: Precision::F32, activations: Activations::F32 };
            let dir = tempfile::tempdir().unwrap();
            let error = graph::build(&checkpoint, flavour, dir.path(), &mut |_, _| ()).unwrap_err().to_string();
            assert_says(&error, &[part, "not there yet in graphs for accelerators"]);
        }
    }
}
