//! What a token costs behind a long context, on a model of any size. Keys and values are noise here, since to compute those of 32 k
//! positions takes an hour on two cores, and neither memory nor time depends on what they say.
//!
//! ```sh
//! OUTPOST_MODEL=/tmp/full-int4 cargo nextest run --workspace --run-ignored only -E 'test(behind_a_long_context)' --no-capture
//! ```

use std::path::PathBuf;
use std::time::Instant;

use super::*;
use crate::device::tests::test_device;

const POSITIONS: usize = 32 << 10;
const TOKENS: usize = 8;

#[test]
#[ignore = "for a model of full shape, which OUTPOST_MODEL names"]
fn decodes_behind_a_long_context() {
    let dir = PathBuf::from(std::env::var_os("OUTPOST_MODEL").expect("OUTPOST_MODEL is set"));
    let config = Config::read(&dir.join("config.json")).unwrap();
    for format in [KvFormat::Bf16, KvFormat::Int8] {
        let decoder = Decoder::load(&dir, &config, test_device(), None).unwrap().with_kv(format);
        let mut session = Session::new(&decoder, Adapter::Vision, POSITIONS).unwrap();
        session.pad(decoder.rope.regime(POSITIONS), POSITIONS - TOKENS).unwrap();
        let begin = Instant::now();
        for token in 0..TOKENS {
            let embeds = decoder.embed(&[token as u32]).unwrap();
            let logits = decoder.forward(&mut session, &embeds, Logits::Last).unwrap();
            assert!(logits.data.iter().all(|x| x.is_finite()), "{format:?}, token {token}");
        }
        let seconds = begin.elapsed().as_secs_f64() / TOKENS as f64;
        println!("{format:?}: {seconds:.2} s a token behind {POSITIONS} positions");
        assert_eq!(session.len(), POSITIONS);
        assert!(matches!(
            decoder.forward(&mut session, &decoder.embed(&[0]).unwrap(), Logits::Last),
            Err(Error::ContextFull { .. })
        ));
    }
}
