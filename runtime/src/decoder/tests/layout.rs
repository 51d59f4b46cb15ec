//! What must not depend on how weights, keys and values are laid out.

use super::*;

/// The same weights on libtorch, laid out as for a GPU and plainly.
#[cfg(feature = "torch")]
fn laid_out_both_ways(quant: Quant) -> [Decoder; 2] {
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("source");
    std::fs::create_dir(&source).unwrap();
    write_checkpoint(&source, &config(), |name| Some(name.to_owned()));
    let plain = load_on(&source, quant, DeviceChoice::Reference);
    let packed = source.with_file_name(format!("packed-{quant}"));
    let config = Config::read(&packed.join("config.json")).unwrap();
    let weights = Weights::open(&packed).unwrap();
    let device = crate::device::tests::torch_device();
    let backend = torch::TorchBackend::load(&weights, &config, device, true, 2).unwrap();
    [Decoder::on(Box::new(backend), &weights, &config).unwrap(), plain]
}

/// Codes that stay packed, and keys and values in one piece, change rounding alone.
#[cfg(feature = "torch")]
#[test]
fn what_is_laid_out_as_for_a_gpu_computes_what_the_reference_computes() {
    for (quant, bound) in
        [(Quant::F32, 1e-5), (Quant::Bf16, 0.02), (Quant::Int8, 0.05), (Quant::Int4, 0.05)]
    {
        for format in [KvFormat::Bf16, KvFormat::Int8] {
            let decoders = laid_out_both_ways(quant).map(|decoder| decoder.with_kv(format));
            for adapter in [Adapter::None, Adapter::Speech] {
                for pieces in [&[40][..], &[1; 6], &[100, 1, 1, 3]] {
                    let [found, expected] = decoders.each_ref().map(|of| run(of, adapter, pieces));
                    let error = relative(&found, &expected);
                    // One product in f32 for many positions, or one for each, rounds to another code now and then.
                    let bound = if format == KvFormat::Int8 { 0.05 } else { bound };
                    assert!(error < bound, "{quant}, {format:?}, {adapter:?}, {pieces:?}: {error}");
                }
            }
        }
    }
}

#[cfg(feature = "torch")]
#[test]
fn a_long_context_in_one_piece_is_attended_to_as_in_blocks() {
    let count = 2300;
    let [mut found, mut expected] = laid_out_both_ways(Quant::F32);
    let expected = last_logits(&mut expected, count, 512);
    for chunk in [512, 2299] {
        // The second one's last pass is a single position.
        let difference = largest_difference(&last_logits(&mut found, count, chunk), &expected);
        assert!(difference < 1e-4, "{chunk}: {difference}");
    }
}

#[test]
fn a_session_that_is_cut_goes_on_like_its_fork() {
    let mut decoders = vec![load(Quant::F32)];
    #[cfg(feature = "torch")]
    decoders.extend(laid_out_both_ways(Quant::F32));
    for decoder in &decoders {
        // Within the original context, and from beyond it back to short factors.
        for count in [20, 40] {
            let mut whole = Session::new(decoder, Adapter::Vision, 512).unwrap();
            let embeds = decoder.embed(&ids(count)).unwrap();
            decoder.forward(&mut whole, &embeds, Logits::Last).unwrap();
            let mut fork = whole.fork(8).unwrap();
            let mut cut = whole.cut(8).unwrap();
            assert_eq!((fork.len(), cut.len()), (8, 8));
            let next = decoder.embed(&[5, 6]).unwrap();
            let expected = decoder.forward(&mut fork, &next, Logits::All).unwrap();
            let found = decoder.forward(&mut cut, &next, Logits::All).unwrap();
            assert!(largest_difference(&found, &expected) < 1e-5, "{}", decoder.kernel());
        }
    }
}

#[cfg(feature = "torch")]
#[test]
#[ignore = "needs a GPU, whose memory it fills"]
fn a_context_that_does_not_fit_is_refused_and_a_short_one_computed() {
    use tch::{Kind, Tensor};

    let device = crate::device::tests::torch_device();
    assert!(device.is_cuda(), "OUTPOST_TEST_DEVICE is cuda");
    let decoder = load(Quant::Int4);
    let short = || last_of(&decoder, 5);
    let expected = short();
    let (mut ballast, mut bytes) = (Vec::new(), 1_i64 << 30);
    while bytes >= 1 << 20 {
        match Tensor::f_zeros([bytes], (Kind::Uint8, device)) {
            Ok(tensor) => ballast.push(tensor),
            Err(_) => bytes /= 2,
        }
    }
    let positions = 1 << 18;
    let mut long = Session::new(&decoder, Adapter::None, positions).unwrap();
    let fault = long.pad(Regime::Long, positions).unwrap_err();
    assert!(matches!(fault, Error::OutOfMemory(_)), "{fault}");
    drop((long, ballast));
    assert!(largest_difference(&short(), &expected) < 1e-4);
    println!("figure {fault}");
}

/// Logits of the last of some positions.
#[cfg(feature = "torch")]
fn last_of(decoder: &Decoder, count: u32) -> Features {
    let mut session = Session::new(decoder, Adapter::None, 512).unwrap();
    decoder.forward(&mut session, &decoder.embed(&ids(count)).unwrap(), Logits::Last).unwrap()
}
