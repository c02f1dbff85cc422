//! Extracts how an uplink was received: by which gateway, how well, on which frequency.

use std::borrow::Cow;

use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Number, value::RawValue};

use super::time;
use crate::host::input::Text;

/// Reception data. V3 data is parsed only when it is needed; the function that receives webhooks does not need it.
#[derive(Debug)]
pub enum Reception<'a> {
    /// V3: `rx_metadata` and `settings`.
    Raw {
        receptions: Option<&'a RawValue>,
        settings: Option<&'a RawValue>,
    },
    Read(Radio<'a>),
}

/// Reception data of the gateway with the best reception.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Radio<'a> {
    /// Behind a Packet Broker, the gateway of the network that forwarded it, if that network tells.
    pub gateway: Option<Cow<'a, str>>,
    /// dBm.
    pub rssi: Option<Number>,
    /// dB.
    pub snr: Option<Number>,
    /// Such as `SF7BW125`.
    pub data_rate: Option<String>,
    /// MHz.
    pub frequency: Option<f64>,
    /// How many gateways received it.
    pub receptions: usize,
    /// What the Packet Broker says of the way (V3).
    pub packet_broker: Option<Raw<'a>>,
}

/// JSON that is compared as text.
#[derive(Clone, Copy, Debug)]
pub struct Raw<'a>(pub &'a RawValue);

impl PartialEq for Raw<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.0.get() == other.0.get()
    }
}

impl<'a> Reception<'a> {
    /// The reception data. Unreadable data is left out.
    #[must_use]
    pub fn radio(&self) -> Radio<'a> {
        match self {
            Self::Raw { receptions, settings } => radio(*receptions, *settings),
            Self::Read(radio) => radio.clone(),
        }
    }

    /// Whether it says when it was received.
    #[must_use]
    pub fn has_time(&self) -> bool {
        let Self::Raw { receptions: Some(receptions), .. } = self else { return false };
        serde_json::from_str::<Vec<Times>>(receptions.get()).is_ok_and(|all| {
            let times = all.iter().flat_map(|times| [&times.time, &times.received_at]);
            times.flatten().any(|text| time::read(text).is_some())
        })
    }
}

#[derive(Deserialize)]
struct Times {
    time: Option<String>,
    received_at: Option<String>,
}

#[derive(Default, Deserialize)]
struct GatewayReception<'a> {
    #[serde(borrow)]
    gateway_ids: Option<GatewayIds<'a>>,
    rssi: Option<Number>,
    snr: Option<Number>,
    #[serde(borrow)]
    packet_broker: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct GatewayIds<'a> {
    #[serde(borrow)]
    gateway_id: Option<Text<'a>>,
    #[serde(borrow)]
    eui: Option<Text<'a>>,
}

#[derive(Deserialize)]
struct PacketBroker<'a> {
    #[serde(borrow)]
    forwarder_gateway_id: Option<Text<'a>>,
    #[serde(borrow)]
    forwarder_gateway_eui: Option<Text<'a>>,
}

#[derive(Deserialize)]
struct Settings {
    data_rate: Option<DataRate>,
    frequency: Option<String>,
}

#[derive(Deserialize)]
struct DataRate {
    lora: Option<Lora>,
    fsk: Option<Fsk>,
    lrfhss: Option<LrFhss>,
}

/// Bandwidth in Hz.
#[derive(Deserialize)]
struct Lora {
    bandwidth: Option<u32>,
    spreading_factor: Option<u32>,
}

/// Bits per second.
#[derive(Deserialize)]
struct Fsk {
    bit_rate: Option<u32>,
}

/// Channel width in Hz.
#[derive(Deserialize)]
struct LrFhss {
    modulation_type: Option<u32>,
    operating_channel_width: Option<u32>,
}

/// The reception data from `rx_metadata` and `settings`.
fn radio<'a>(receptions: Option<&'a RawValue>, settings: Option<&RawValue>) -> Radio<'a> {
    let all = receptions.map(read).unwrap_or_default();
    let receptions = all.len();
    let best = all.into_iter().max_by(GatewayReception::is_worse);
    let settings = lenient::<Settings>(settings);
    let rate = settings.as_ref().and_then(|settings| settings.data_rate.as_ref());
    // The JSON omits an SNR of zero. FSK has no measured SNR.
    let zero = rate.is_none_or(|rate| rate.fsk.is_none()).then(|| Number::from(0));
    Radio {
        snr: best.as_ref().and_then(|best| best.snr.clone().or(zero.filter(|_| best.rssi.is_some()))),
        rssi: best.as_ref().and_then(|best| best.rssi.clone()),
        packet_broker: best.as_ref().and_then(|best| best.packet_broker).map(Raw),
        gateway: best.and_then(GatewayReception::gateway),
        data_rate: rate.and_then(data_rate),
        frequency: settings.and_then(|settings| settings.frequency?.parse::<f64>().ok()).map(|hertz| hertz / 1e6),
        receptions,
    }
}

/// All receptions. One that is unreadable takes no other with it.
fn read(receptions: &RawValue) -> Vec<GatewayReception<'_>> {
    serde_json::from_str(receptions.get()).unwrap_or_else(|_| {
        let each = serde_json::from_str::<Vec<&RawValue>>(receptions.get()).unwrap_or_default();
        each.into_iter().map(|one| serde_json::from_str(one.get()).unwrap_or_default()).collect()
    })
}

/// The best of the receptions as it was written, and how many there are.
pub fn best(receptions: &RawValue) -> Option<(&RawValue, usize)> {
    let each = serde_json::from_str::<Vec<&RawValue>>(receptions.get()).ok()?;
    let count = each.len();
    let rated = each.into_iter().map(|raw| (raw, serde_json::from_str(raw.get()).unwrap_or_default()));
    let (best, _) = rated.max_by(|(_, one), (_, other)| GatewayReception::is_worse(one, other))?;
    Some((best, count))
}

impl<'a> GatewayReception<'a> {
    fn is_worse(&self, other: &Self) -> std::cmp::Ordering {
        let (one, other) = (self.quality(), other.quality());
        one.0.total_cmp(&other.0).then(one.1.total_cmp(&other.1))
    }

    /// SNR, then RSSI, to find the best gateway. A missing RSSI is not zero (0 dBm does not occur): some networks
    /// withhold the reception quality of their gateways. Such a gateway ranks last.
    fn quality(&self) -> (f64, f64) {
        let number = |value: &Option<Number>| value.as_ref().and_then(Number::as_f64);
        match number(&self.rssi) {
            Some(rssi) => (number(&self.snr).unwrap_or_default(), rssi),
            None => (f64::NEG_INFINITY, f64::NEG_INFINITY),
        }
    }

    /// All that comes through a Packet Broker has the gateway id `packetbroker`.
    fn gateway(self) -> Option<Cow<'a, str>> {
        let forwarder = self.packet_broker.and_then(|raw| serde_json::from_str::<PacketBroker<'a>>(raw.get()).ok());
        let forwarder = forwarder.and_then(|broker| broker.forwarder_gateway_id.or(broker.forwarder_gateway_eui));
        let own = || self.gateway_ids.and_then(|ids| ids.gateway_id.or(ids.eui));
        forwarder.filter(|Text(id)| !id.is_empty()).or_else(own).map(|Text(id)| id)
    }
}

/// The data rate as gateways and V2 write it: `SF7BW125`, `FSK50000` (bits per second), `M0CW137` (LR-FHSS).
fn data_rate(rate: &DataRate) -> Option<String> {
    const KILO: u32 = 1000;
    if let Some(lora) = &rate.lora {
        return Some(format!("SF{}BW{}", lora.spreading_factor?, lora.bandwidth? / KILO));
    }
    if let Some(fsk) = &rate.fsk {
        return Some(format!("FSK{}", fsk.bit_rate?));
    }
    let fhss = rate.lrfhss.as_ref()?;
    Some(format!("M{}CW{}", fhss.modulation_type.unwrap_or_default(), fhss.operating_channel_width? / KILO))
}

/// Parses the value. `None` if it has another type.
fn lenient<T: DeserializeOwned>(raw: Option<&RawValue>) -> Option<T> {
    serde_json::from_str(raw?.get()).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::things_network::v3;

    /// Lives until the end of the test.
    fn radio_of(message: serde_json::Value) -> Radio<'static> {
        let ids = json!({"device_id": "d", "application_ids": {"application_id": "a"}});
        let body = json!({"end_device_ids": ids, "uplink_message": message}).to_string();
        v3::parse(body.leak()).unwrap().unwrap().reception.radio()
    }

    #[test]
    fn the_best_gateway_is_the_one_with_the_best_snr() {
        let gateway = |id: &str, rssi, snr| json!({"gateway_ids": {"gateway_id": id}, "rssi": rssi, "snr": snr});
        let radio = radio_of(json!({"rx_metadata": [
            gateway("near", -35, 5.2), gateway("best", -80, 9.8), gateway("weaker", -81, 9.8), gateway("far", -120, -12.0)
        ]}));
        assert_eq!(radio.gateway.as_deref(), Some("best"));
        assert_eq!((radio.rssi, radio.snr), (Some((-80).into()), Number::from_f64(9.8)));
        // An SNR of zero is omitted from the JSON.
        let zero = radio_of(json!({"rx_metadata": [{"gateway_ids": {"eui": "9C5C8E00001A05C4"}, "rssi": -90}]}));
        assert_eq!((zero.gateway.as_deref(), zero.snr), (Some("9C5C8E00001A05C4"), Some(0.into())));
        // A withheld or masked value is not zero.
        let withheld = json!({"gateway_ids": {"gateway_id": "packetbroker"}});
        let radio = radio_of(json!({"rx_metadata": [withheld, gateway("mine", -120, -19.5)]}));
        assert_eq!((radio.gateway.as_deref(), radio.rssi), (Some("mine"), Some((-120).into())));
        let alone = radio_of(json!({"rx_metadata": [withheld]}));
        assert_eq!((alone.gateway.as_deref(), alone.rssi, alone.snr), (Some("packetbroker"), None, None));
        assert_eq!(radio_of(json!({})), Radio::default());
    }

    #[test]
    fn every_modulation_has_its_name() {
        let rate = |rate| radio_of(json!({"settings": {"data_rate": rate, "frequency": "868100000"}}));
        assert_eq!(
            rate(json!({"lora": {"bandwidth": 125_000, "spreading_factor": 12}})).data_rate.unwrap(),
            "SF12BW125"
        );
        assert_eq!(rate(json!({"fsk": {"bit_rate": 50_000}})).data_rate.unwrap(), "FSK50000");
        let fhss = json!({"lrfhss": {"operating_channel_width": 137_000, "coding_rate": "1/3"}});
        assert_eq!(rate(fhss).data_rate.unwrap(), "M0CW137");
        assert_eq!(rate(json!({"smoke": {}})).frequency, Some(868.1));
    }

    #[test]
    fn odd_radio_data_is_no_reason_to_refuse_an_uplink() {
        let odd = radio_of(json!({"rx_metadata": "none", "settings": {"frequency": 868}}));
        assert_eq!(odd, Radio::default());
        let good = json!({"gateway_ids": {"gateway_id": "good"}, "rssi": -90});
        let odd = radio_of(json!({"rx_metadata": [7, {"rssi": "loud"}, good, null, {"gateway_ids": []}]}));
        assert_eq!((odd.gateway.as_deref(), odd.rssi, odd.receptions), (Some("good"), Some((-90).into()), 5));
    }

    #[test]
    fn behind_a_packet_broker_is_the_gateway_of_another_network() {
        let gateway = |broker: serde_json::Value| {
            let one = json!({"gateway_ids": {"gateway_id": "packetbroker"}, "rssi": -90, "packet_broker": broker});
            radio_of(json!({"rx_metadata": [one]})).gateway.unwrap()
        };
        let eui = "7276FF0000000005";
        let both = json!({"forwarder_gateway_id": "eui-7276ff0000000005", "forwarder_gateway_eui": eui});
        assert_eq!(gateway(both), "eui-7276ff0000000005");
        assert_eq!(gateway(json!({"forwarder_gateway_eui": eui})), eui);
        for none in [json!({"forwarder_net_id": "000013"}), json!({"forwarder_gateway_id": 7}), json!("x"), json!({})] {
            assert_eq!(gateway(none.clone()), "packetbroker", "{none}");
        }
    }
}
