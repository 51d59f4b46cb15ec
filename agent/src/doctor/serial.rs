//! Checks serial ports. None is opened: that resets many boards.

use std::path::Path;

use outpost_firmware_bridge::host::PortChoice;

use crate::doctor::{Finding, names, text};

const AREA: &str = "serial";

/// Checks USB serial ports, and the configured one.
pub(super) fn examine(root: &Path, configured: Option<&str>) -> Vec<Finding> {
    let ports = names(&root.join("sys/class/tty"));
    let mut findings: Vec<Finding> = ports.iter().filter_map(|port| usb_port(root, port)).collect();
    match configured {
        Some(port) => findings.push(configured_port(root, port)),
        None if findings.is_empty() => {
            findings.push(Finding::ok(AREA, "no USB serial port, and none configured"));
        }
        None => {}
    }
    findings
}

/// A port that belongs to a USB device.
fn usb_port(root: &Path, port: &str) -> Option<Finding> {
    let device = root.join("sys/class/tty").join(port).join("device").canonicalize().ok()?;
    let usb = device.ancestors().find(|folder| folder.join("idVendor").exists())?;
    let [vendor, product, name] =
        ["idVendor", "idProduct", "product"].map(|file| text(&usb.join(file)));
    Some(Finding::ok(AREA, format!("/dev/{port}  usb:{vendor}:{product}  {name}").trim_end()))
}

fn configured_port(root: &Path, port: &str) -> Finding {
    let remedy = "plug the board in; `ls /dev/serial/by-id` and `lsusb` show what there is";
    match port.parse::<PortChoice>() {
        Err(fault) => Finding::wrong(AREA, "firmware.port", fault.to_string()),
        Ok(choice) => match choice.find(&root.join("sys/class/tty")) {
            Ok(path) if path.exists() => {
                Finding::ok(AREA, format!("firmware.port is {}", path.display()))
            }
            Ok(path) => Finding::wrong(
                AREA,
                format!("firmware.port: there is no {}", path.display()),
                remedy,
            ),
            Err(fault) => Finding::wrong(AREA, format!("firmware.port: {fault}"), remedy),
        },
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::doctor::Verdict;

    #[test]
    fn usb_ports_are_named_as_the_configuration_takes_them() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        let usb = root.join("sys/devices/usb1/1-1");
        let tty = root.join("sys/class/tty");
        fs::create_dir_all(usb.join("1-1:1.0")).unwrap();
        fs::create_dir_all(tty.join("ttyACM0")).unwrap();
        fs::create_dir_all(tty.join("tty0")).unwrap();
        for (file, content) in
            [("idVendor", "2e8a\n"), ("idProduct", "000a\n"), ("product", "Pico\n")]
        {
            fs::write(usb.join(file), content).unwrap();
        }
        symlink(usb.join("1-1:1.0"), tty.join("ttyACM0/device")).unwrap();
        assert_eq!(examine(root, None), [Finding::ok(AREA, "/dev/ttyACM0  usb:2e8a:000a  Pico")]);
        let findings = examine(root, Some("usb:1234:5678"));
        assert_eq!(findings[1].verdict, Verdict::Wrong);
        assert!(findings[1].found.contains("1234:5678"), "{findings:?}");
    }
}
