//! A network as it is written in flags and lists: an address and how many of its bits count.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// A network: an address and how many of its bits count.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub struct Network {
    pub(super) ip: IpAddr,
    pub(super) bits: u8,
}

impl FromStr for Network {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Network, NetworkError> {
        let (ip, bits) = match text.split_once('/') {
            Some((ip, bits)) => (ip, Some(bits)),
            None => (text, None),
        };
        let ip: IpAddr = ip.parse().map_err(|_| NetworkError::Address)?;
        let width: u8 = if ip.is_ipv4() { 32 } else { 128 };
        let bits = match bits {
            None => width,
            // Digits only: `parse` would take "+8" too.
            Some(bits) if bits.bytes().all(|byte| byte.is_ascii_digit()) => {
                bits.parse().map_err(|_| NetworkError::Bits)?
            }
            Some(_) => return Err(NetworkError::Bits),
        };
        if bits > width {
            return Err(NetworkError::Bits);
        }
        let network = Network { ip, bits }.canonical();
        if !network.has_clear_host_bits() {
            return Err(NetworkError::HostBits);
        }
        Ok(network)
    }
}

impl Network {
    /// `::ffff:192.0.2.0/120` is `192.0.2.0/24`: that is how clients are looked up.
    fn canonical(self) -> Network {
        match (self.ip, self.ip.to_canonical()) {
            (IpAddr::V6(_), ip @ IpAddr::V4(_)) if self.bits >= 96 => Network {
                ip,
                bits: self.bits - 96,
            },
            _ => self,
        }
    }

    fn has_clear_host_bits(self) -> bool {
        match self.ip {
            IpAddr::V4(ip) => ip.to_bits().checked_shl(u32::from(self.bits)).unwrap_or(0) == 0,
            IpAddr::V6(ip) => ip.to_bits().checked_shl(u32::from(self.bits)).unwrap_or(0) == 0,
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.ip, self.bits)
    }
}

/// Why a network could not be read.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub enum NetworkError {
    Address,
    Bits,
    /// Most likely a typing error; to guess which half is wrong would be a guess about who gets in.
    HostBits,
}

impl std::error::Error for NetworkError {}

impl fmt::Display for NetworkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            NetworkError::Address => {
                "not an IP address or network, as in 192.0.2.0/24 or 2001:db8::/32"
            }
            NetworkError::Bits => "the prefix length is a number from 0 to 32 (IPv4) or 128 (IPv6)",
            NetworkError::HostBits => "address bits are set beyond the prefix length",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_are_read() {
        let table = [
            ("192.0.2.0/24", Ok("192.0.2.0/24")),
            ("192.0.2.1", Ok("192.0.2.1/32")),
            ("0.0.0.0/0", Ok("0.0.0.0/0")),
            ("2001:db8::/32", Ok("2001:db8::/32")),
            ("::1", Ok("::1/128")),
            ("::/0", Ok("::/0")),
            ("::ffff:192.0.2.0/120", Ok("192.0.2.0/24")),
            ("192.0.2.1/24", Err(NetworkError::HostBits)),
            ("2001:db8::1/32", Err(NetworkError::HostBits)),
            ("128.0.0.0/0", Err(NetworkError::HostBits)),
            ("192.0.2.0/33", Err(NetworkError::Bits)),
            ("::/129", Err(NetworkError::Bits)),
            ("192.0.2.0/", Err(NetworkError::Bits)),
            ("192.0.2.0/+24", Err(NetworkError::Bits)),
            ("192.0.2.0/255.255.255.0", Err(NetworkError::Bits)),
            ("192.0.2", Err(NetworkError::Address)),
            ("192.0.2.*", Err(NetworkError::Address)),
            ("mx.example", Err(NetworkError::Address)),
        ];
        for (text, want) in table {
            let got = text.parse::<Network>().map(|network| network.to_string());
            assert_eq!(got, want.map(String::from), "{text}");
        }
    }
}
