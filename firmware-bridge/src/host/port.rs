//! Finding and opening the serial port.

use serial2_tokio::SerialPort;
use std::fmt;
use std::format;
use std::fs::{File, TryLockError};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::string::{String, ToString as _};

/// Where a board is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PortChoice {
    /// A device file. Those in `/dev/serial/by-id/` keep their name when the board is plugged in again.
    Path(PathBuf),
    /// Whatever port this USB device has now.
    Usb(UsbId),
}

/// Names a USB device: `vendor:product`, both hexadecimal, with `:serial` where there is more than one of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsbId {
    /// The maker.
    pub vendor: u16,
    /// The product.
    pub product: u16,
    /// The single device.
    pub serial: Option<String>,
}

/// A port that cannot be used, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum PortError {
    /// No USB device of this id has a serial port.
    #[error("no serial port of USB device {0}: plug the board in, or see `lsusb` for its id")]
    Absent(UsbId),
    /// The port cannot be opened.
    #[error("{}: {source}: is the board plugged in, and may this user open it (group dialout)?", path.display())]
    Open {
        /// The port.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another program has the port.
    #[error("{}: another program has this port: stop it, or give it another board", .0.display())]
    Taken(PathBuf),
    /// The port's text in a configuration cannot be read.
    #[error(
        "{0:?}: expected a path such as /dev/serial/by-id/usb-…, or usb:VENDOR:PRODUCT such as usb:2e8a:000a"
    )]
    Malformed(String),
}

/// Keeps other programs that ask from opening the port.
#[derive(Debug)]
pub(super) struct PortLock {
    _file: File,
}

/// `O_NONBLOCK` and `O_NOCTTY`: not to wait for a carrier, and not to become this program's terminal.
const WITHOUT_WAITING: i32 = 0o4400;

impl FromStr for PortChoice {
    type Err = PortError;

    fn from_str(text: &str) -> Result<Self, PortError> {
        let malformed = || PortError::Malformed(text.to_string());
        let Some(id) = text.strip_prefix("usb:") else {
            return if text.is_empty() { Err(malformed()) } else { Ok(Self::Path(text.into())) };
        };
        let mut parts = id.splitn(3, ':');
        let mut number = || u16::from_str_radix(parts.next()?, 16).ok();
        let (vendor, product) = number().zip(number()).ok_or_else(malformed)?;
        Ok(Self::Usb(UsbId { vendor, product, serial: parts.next().map(str::to_string) }))
    }
}

impl fmt::Display for UsbId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04x}:{:04x}", self.vendor, self.product)?;
        self.serial.iter().try_for_each(|serial| write!(f, ":{serial}"))
    }
}

impl fmt::Display for PortChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => path.display().fmt(f),
            Self::Usb(id) => write!(f, "usb:{id}"),
        }
    }
}

impl PortChoice {
    /// Opens the port as it is now, for this program alone. The modem lines are left alone, since on many boards they
    /// reset it.
    pub(super) fn open(&self, baud: u32) -> Result<(SerialPort, PortLock), PortError> {
        let path = self.find(Path::new("/sys/class/tty"))?;
        let fault = |source| PortError::Open { path: path.clone(), source };
        let mut options = File::options();
        let file = options.read(true).custom_flags(WITHOUT_WAITING).open(&path).map_err(fault)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(PortError::Taken(path)),
            Err(TryLockError::Error(source)) => return Err(fault(source)),
        }
        let port = SerialPort::open(&path, baud).map_err(fault)?;
        Ok((port, PortLock { _file: file }))
    }

    /// The device file, given the system's list of serial ports, which is `/sys/class/tty`.
    ///
    /// # Errors
    /// When no USB device of the id is plugged in.
    pub fn find(&self, ports: &Path) -> Result<PathBuf, PortError> {
        match self {
            Self::Path(path) => Ok(path.clone()),
            Self::Usb(id) => {
                let name = find_usb(id, ports).ok().flatten();
                name.map(|name| Path::new("/dev").join(name))
                    .ok_or_else(|| PortError::Absent(id.clone()))
            }
        }
    }
}

/// The name of the first port whose USB device has this id.
fn find_usb(id: &UsbId, ports: &Path) -> io::Result<Option<String>> {
    let mut entries: std::vec::Vec<_> =
        std::fs::read_dir(ports)?.filter_map(Result::ok).map(|entry| entry.path()).collect();
    entries.sort();
    for entry in entries {
        // The port's device is an interface of the USB device, some folders below it.
        let Ok(device) = entry.join("device").canonicalize() else { continue };
        let Some(usb) = device.ancestors().find(|folder| folder.join("idVendor").exists()) else {
            continue;
        };
        let read = |name: &str| {
            std::fs::read_to_string(usb.join(name)).unwrap_or_default().trim().to_string()
        };
        let is_it = read("idVendor") == format!("{:04x}", id.vendor)
            && read("idProduct") == format!("{:04x}", id.product)
            && id.serial.as_ref().is_none_or(|serial| *serial == read("serial"));
        if is_it {
            return Ok(entry.file_name().map(|name| name.to_string_lossy().into_owned()));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn choices_are_read_from_text() {
        let usb = |serial: Option<&str>| {
            let serial = serial.map(Into::into);
            PortChoice::Usb(UsbId { vendor: 0x2e8a, product: 0xa, serial })
        };
        assert_eq!("usb:2e8a:000a".parse::<PortChoice>().unwrap(), usb(None));
        assert_eq!("usb:2e8a:000a:E66".parse::<PortChoice>().unwrap(), usb(Some("E66")));
        assert_eq!(usb(Some("E66")).to_string(), "usb:2e8a:000a:E66");
        let path = "/dev/serial/by-id/usb-x".parse::<PortChoice>().unwrap();
        assert_eq!(path, PortChoice::Path("/dev/serial/by-id/usb-x".into()));
        for wrong in ["", "usb:", "usb:2e8a", "usb:xyz:1"] {
            let fault = wrong.parse::<PortChoice>().unwrap_err().to_string();
            assert!(fault.contains("usb:VENDOR:PRODUCT"), "{fault}");
        }
    }

    #[test]
    fn a_usb_device_is_found_under_whatever_name_it_has() {
        let root = tempfile::tempdir().unwrap();
        let add = |port: &str, vendor: &str, serial: &str| {
            let usb = root.path().join("devices").join(serial);
            let interface = usb.join("1-1:1.0").join(port);
            fs::create_dir_all(&interface).unwrap();
            fs::write(usb.join("idVendor"), std::format!("{vendor}\n")).unwrap();
            fs::write(usb.join("idProduct"), "000a\n").unwrap();
            fs::write(usb.join("serial"), std::format!("{serial}\n")).unwrap();
            let class = root.path().join("class").join(port);
            fs::create_dir_all(&class).unwrap();
            std::os::unix::fs::symlink(&interface, class.join("device")).unwrap();
        };
        add("ttyACM0", "1234", "A");
        add("ttyACM1", "2e8a", "B");
        add("ttyACM2", "2e8a", "C");
        let ports = root.path().join("class");
        let find = |text: &str| text.parse::<PortChoice>().unwrap().find(&ports);
        assert_eq!(find("usb:2e8a:000a").unwrap(), Path::new("/dev/ttyACM1"));
        assert_eq!(find("usb:2e8a:000a:C").unwrap(), Path::new("/dev/ttyACM2"));
        let fault = find("usb:2e8a:000b").unwrap_err().to_string();
        assert!(fault.contains("2e8a:000b") && fault.contains("lsusb"), "{fault}");
    }
}
