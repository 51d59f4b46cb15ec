use serde_json::json;

use super::*;

fn fault(config: &Value, ignored: &[&str]) -> Option<String> {
    let ignored: Vec<String> = ignored.iter().map(|name| (*name).to_owned()).collect();
    check(config.as_object().unwrap(), &ignored).err()
}

#[test]
fn what_may_change_the_arithmetic_is_refused_by_its_key() {
    for (key, value) in [
        ("model_type", json!("granite")),
        ("hidden_act", json!("gelu")),
        ("embedding_multiplier", json!(12.0)),
        ("final_logit_softcapping", json!(30.0)),
        ("quantization_config", json!({"quant_method": "gptq", "bits": 4})),
        ("attention_bias", json!(true)),
        ("sliding_window", json!(64)),
        ("num_local_experts", json!(8)),
        ("full_attn_mod", json!(2)),
        ("layer_types", json!(["sliding_attention"])),
        ("something_new", json!(1)),
    ] {
        let mut config = json!({"max_position_embeddings": 512});
        config[key] = value;
        let fault_text = fault(&config, &[]).unwrap_or_else(|| panic!("{config}"));
        assert!(
            fault_text.contains(&format!("`{key}`")) && fault_text.contains("--ignore-key"),
            "{fault_text}"
        );
        assert_eq!(fault(&config, &[key]), None);
    }
    let nested = json!({"rope_scaling": {"type": "longrope", "attention_factor": 1.2},
        "embd_layer": {"image_embd_layer": {"projection_cls": "linear"}}});
    let text = fault(&nested, &[]).unwrap();
    assert!(
        text.contains("`rope_scaling.attention_factor`")
            && text.contains("`embd_layer.image_embd_layer.projection_cls`"),
        "{text}"
    );
    assert_eq!(fault(&nested, &["rope_scaling.attention_factor", "projection_cls"]), None);
}

#[test]
fn what_says_nothing_passes() {
    let config = json!({"new_a": null, "new_b": false, "new_c": {}, "new_d": [], "new_e": "",
        "sliding_window": 262_144, "max_position_embeddings": 131_072, "attention_bias": false,
        "torch_dtype": "bfloat16", "architectures": ["LlamaForCausalLM"], "hidden_act": "silu"});
    assert_eq!(fault(&config, &[]), None);
    let off =
        json!({"sliding_window": 64, "use_sliding_window": false, "max_position_embeddings": 512});
    assert_eq!(fault(&off, &[]), None);
}

#[test]
fn adapters_of_other_kinds_are_refused() {
    let usual = json!({"peft_type": "LORA", "r": 8, "lora_alpha": 16, "bias": "none", "task_type": "CAUSAL_LM",
        "fan_in_fan_out": false, "init_lora_weights": true, "modules_to_save": null, "use_dora": false,
        "alpha_pattern": {}, "megatron_core": "megatron.core", "qalora_group_size": 16, "layer_replication": null});
    assert_eq!(check_adapter(usual.as_object().unwrap(), &[]), Ok(()));
    for (key, value) in [
        ("peft_type", json!("LOHA")),
        ("use_dora", json!(true)),
        ("modules_to_save", json!(["lm_head"])),
        ("bias", json!("all")),
        ("fan_in_fan_out", json!(true)),
        ("layers_to_transform", json!([0, 1])),
        ("init_lora_weights", json!("pissa")),
        ("lora_bias", json!(true)),
    ] {
        let mut config = usual.clone();
        config[key] = value;
        let fault = check_adapter(config.as_object().unwrap(), &[]).unwrap_err();
        assert!(fault.contains(&format!("`{key}`")), "{fault}");
    }
}
