#[path = "../../tests/it/parity.rs"] mod parity;
