//! Numbers of the table: which message is which, and which function has which byte.

use super::{Function, Message, Quantity};

impl Message {
    /// How many messages this build knows.
    pub const COUNT: u8 = 11;
    /// All of them, as [`Hello::kinds`](super::Hello::kinds) has it.
    pub const ALL: u32 = (1 << Self::COUNT) - 1;

    /// Its number, which is its first byte on the line.
    pub const fn kind(&self) -> u8 {
        match self {
            Self::Reading(_) => 0,
            Self::Input(_) => 1,
            Self::Command(_) => 2,
            Self::Reply(_) => 3,
            Self::Agent(_) => 4,
            Self::Cue(_) => 5,
            Self::Log(_) => 6,
            Self::ClockAsk(_) => 7,
            Self::Clock(_) => 8,
            Self::Ask(_) => 9,
            Self::Answer(_) => 10,
        }
    }
}

impl Quantity {
    /// The unit that people read, and what a reading is divided by to get there.
    pub const fn unit(self) -> (&'static str, i32) {
        match self {
            Self::Temperature => ("°C", 1000),
            Self::Humidity => ("%", 10),
            Self::Illuminance => ("lx", 1),
            Self::Pressure => ("hPa", 100),
            Self::Distance => ("m", 1000),
            Self::Voltage => ("V", 1000),
            Self::Current => ("A", 1000),
        }
    }
}

impl From<u8> for Function {
    fn from(code: u8) -> Self {
        match code {
            0 => Self::Sensor(Quantity::Temperature),
            1 => Self::Sensor(Quantity::Humidity),
            2 => Self::Sensor(Quantity::Illuminance),
            3 => Self::Sensor(Quantity::Pressure),
            4 => Self::Sensor(Quantity::Distance),
            5 => Self::Sensor(Quantity::Voltage),
            6 => Self::Sensor(Quantity::Current),
            32 => Self::Button,
            33 => Self::Motion,
            34 => Self::Wake,
            64 => Self::Switch,
            65 => Self::Dimmer,
            66 => Self::Pin,
            96 => Self::Indicator,
            97 => Self::Buzzer,
            code => Self::Unknown(code),
        }
    }
}

impl From<Function> for u8 {
    fn from(function: Function) -> Self {
        match function {
            Function::Sensor(Quantity::Temperature) => 0,
            Function::Sensor(Quantity::Humidity) => 1,
            Function::Sensor(Quantity::Illuminance) => 2,
            Function::Sensor(Quantity::Pressure) => 3,
            Function::Sensor(Quantity::Distance) => 4,
            Function::Sensor(Quantity::Voltage) => 5,
            Function::Sensor(Quantity::Current) => 6,
            Function::Button => 32,
            Function::Motion => 33,
            Function::Wake => 34,
            Function::Switch => 64,
            Function::Dimmer => 65,
            Function::Pin => 66,
            Function::Indicator => 96,
            Function::Buzzer => 97,
            Function::Unknown(code) => code,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_function_keeps_its_byte() {
        for code in 0..=u8::MAX {
            assert_eq!(u8::from(Function::from(code)), code);
        }
    }
}
