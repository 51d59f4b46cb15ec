use super::*;

fn faults(config: &FirmwareConfig) -> String {
    let mut faults = Faults::default();
    config.check(&mut faults);
    faults.to_string()
}

#[test]
fn unusable_values_are_named_with_their_remedy() {
    assert_eq!(faults(&FirmwareConfig::default()), "");
    let config = FirmwareConfig {
        port: Some("usb:2e8a".into()),
        baud: 300,
        timeout: Duration::ZERO,
        ..FirmwareConfig::default()
    };
    let text = faults(&config);
    for part in ["usb:VENDOR:PRODUCT", "firmware.baud = 300", "firmware.timeout_seconds"] {
        assert!(text.contains(part), "{part} is not in:\n{text}");
    }
    let config = FirmwareConfig { push_to_talk: Some("talk".into()), ..FirmwareConfig::default() };
    assert!(faults(&config).contains("give firmware.port too"));
}

#[test]
fn an_actuator_that_cannot_be_dimmed_is_on_or_off() {
    use outpost_firmware_bridge::wire::Action;
    assert_eq!(hands::action(Function::Dimmer, true, Some(40)), Action::Level(400));
    assert_eq!(hands::action(Function::Switch, true, Some(40)), Action::On);
    assert_eq!(hands::action(Function::Dimmer, false, Some(40)), Action::Off);
}
