//! Says how commands get to devices that send no uplink just then. Pure.

use iothub_connector::config::Config;

use super::report::Row;

/// `None`: no timer fetches commands.
pub fn check(config: &Config) -> Option<Row> {
    let things_network = config.things_network.as_ref()?;
    let poll = things_network.poll.as_ref()?;
    let text = format!("commands are fetched every {} s between uplinks", poll.every.as_secs());
    Some(match &things_network.address {
        Some(address) => Row::ok("DownlinkPollSeconds", format!("{text}, and may go to {}", address.root)),
        None => Row::warning(
            "DownlinkPollSeconds",
            format!(
                "{text}, but only for devices whose webhook came to the timer's process: on Flex Consumption that is none"
            ),
            "set ThingsStackUrl and ThingsStackDownlinkApiKey",
        ),
    })
}
