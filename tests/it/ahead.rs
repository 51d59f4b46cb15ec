//! Work on an utterance that begins before it has ended.

use outpost_agent_core::prompting::{command, user};
use outpost_agent_core::toolset::bundled_tools;
use outpost_runtime::media::read_wav;
use outpost_runtime::{Engine, EngineOptions, Generation, PrefixCache, Request, Stop};
use outpost_tests::root;

use crate::end_to_end::bundled;

fn request(name: &str) -> Request {
    let audio = read_wav(&root().join("models/nano/samples").join(name)).unwrap();
    command(user(None, Some(audio), None), &bundled_tools(), 64)
}

fn answer(engine: &Engine, cache: &mut PrefixCache, request: &Request) -> Generation {
    engine.generate(cache, request, &Stop::never(), &mut |_| ()).unwrap()
}

#[test]
fn an_answer_begun_ahead_is_the_same_and_a_wrong_guess_changes_nothing() {
    let engine = Engine::load(&bundled(), &EngineOptions::default()).unwrap();
    let names = ["lock_the_front_door.wav", "turn_on_the_kitchen_light.wav"];
    let mut cache = PrefixCache::new();
    let plain = names.map(|name| answer(&engine, &mut cache, &request(name)));

    let mut cache = PrefixCache::new();
    for (name, plain) in names.iter().zip(&plain) {
        engine.prepare(&mut cache, &request(name), &Stop::never()).unwrap();
        let ahead = answer(&engine, &mut cache, &request(name));
        assert_eq!((&ahead.text, &ahead.calls), (&plain.text, &plain.calls));
        assert_eq!(ahead.usage.cached_tokens, ahead.usage.prompt_tokens, "all of it was ready");
    }

    let mut cache = PrefixCache::new();
    for (index, plain) in plain.iter().enumerate() {
        engine.prepare(&mut cache, &request(names[1 - index]), &Stop::never()).unwrap();
        let after = answer(&engine, &mut cache, &request(names[index]));
        assert_eq!((&after.text, &after.calls), (&plain.text, &plain.calls));
        assert!(after.usage.cached_tokens < after.usage.prompt_tokens, "it was another one");
    }

    let stopped = Stop::never();
    stopped.cancel();
    assert!(engine.prepare(&mut cache, &request(names[0]), &stopped).is_err());
}
