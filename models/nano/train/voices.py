"""Who speaks: the voices of each engine, and those never trained on."""

_ACCENTS = "en-us en-gb en-gb-scotland en-029 en-gb-x-rp en-gb-x-gbclan en-gb-x-gbcwmd en-us-nyc".split()
_VARIANTS = "m1 m2 m4 m5 m7 f1 f2 f3 f5 klatt klatt2 klatt4".split()
_HELD_OUT_VARIANTS = "m3 m6 f4 klatt3".split()

_FLITE = "slt awb kal kal16".split()
_HELD_OUT_FLITE = ["rms"]

_KOKORO = """af_alloy af_aoede af_bella af_heart af_jessica af_kore af_nicole af_river af_sky am_adam am_echo am_eric
    am_fenrir am_onyx am_puck am_santa bf_alice bf_isabella bf_lily bm_daniel bm_fable bm_george bm_lewis""".split()
_KOKORO_FOREIGN = """ef_dora em_alex em_santa ff_siwis hf_alpha hf_beta hm_omega hm_psi if_sara im_nicola jf_alpha jm_kumo
    pf_dora pm_alex zf_xiaobei zf_xiaoni zm_yunjian zm_yunxi""".split()
_HELD_OUT_KOKORO = "af_sarah af_nova am_michael am_liam bf_emma".split()


def pick(rng, engine, split):
    held_out = split == "heldout"
    if engine == "espeak":
        accent = "en-us" if rng.random() < 0.35 else rng.choice(_ACCENTS)
        return f"{accent}+{rng.choice(_HELD_OUT_VARIANTS if held_out else _VARIANTS)}"
    if engine == "flite":
        return rng.choice(_HELD_OUT_FLITE if held_out else _FLITE)
    if engine == "piper":
        return "en_US-joe"
    if held_out:
        return rng.choice(_HELD_OUT_KOKORO)
    if split != "seen" and (chance := rng.random()) < 0.45:
        if chance < 0.2:
            return rng.choice(_KOKORO_FOREIGN)
        return "+".join(rng.sample(_KOKORO + (_KOKORO_FOREIGN if chance < 0.3 else []), 2))
    return rng.choice(_KOKORO)
