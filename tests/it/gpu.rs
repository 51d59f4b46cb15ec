//! The bundled model on the device under test, beside the CPU.

use outpost_runtime::device::DeviceChoice;
use outpost_runtime::{Engine, EngineOptions, Request, Role, Stop, Turn};

use crate::end_to_end::bundled;

/// Kernels of our own round activations to 8 bits, libtorch rounds each intermediate result to bf16.
const BOUND: f32 = 0.1;

#[test]
fn the_bundled_model_computes_alike_on_both_devices() {
    let dir = bundled();
    // Without a GPU it is libtorch on the CPU.
    let device = match outpost_tests::device() {
        DeviceChoice::Cpu => DeviceChoice::Reference,
        device => device,
    };
    let engine =
        |device| Engine::load(&dir, &EngineOptions { device, ..EngineOptions::default() }).unwrap();
    let (here, there) = (engine(DeviceChoice::Cpu), engine(device));
    // Few positions, and many: they take different products.
    let long = "turn on the light in the kitchen, then lock the front door, and ".repeat(6);
    for text in ["what time is it", long.as_str()] {
        let request = Request::new(vec![Turn::text(Role::User, text)]);
        let logits = |engine: &Engine| {
            let prompt = engine.render(&request).unwrap();
            engine.logits(&prompt, &Stop::never()).unwrap()
        };
        let (expected, found) = (logits(&here), logits(&there));
        assert_eq!((expected.rows, expected.width), (found.rows, found.width));
        let square = |xs: &mut dyn Iterator<Item = f32>| xs.map(|x| x * x).sum::<f32>().sqrt();
        let error = square(&mut found.data.iter().zip(&expected.data).map(|(a, b)| a - b))
            / square(&mut expected.data.iter().copied());
        println!("figure {} positions on {device:?}: off by {error:.4}", expected.rows);
        assert!(error < BOUND, "{text}: {error}");
    }
}
