#!/bin/sh
# Takes back what device-setup.sh turned on: the phone's own settings count again.
set -eu
adb=${ADB:-adb}
for setting in global_kill_switch federated_compute_kill_switch enable_ondevicepersonalization_apis enable_personalization_status_override \
  personalization_status_override_value caller_app_allow_list isolated_service_allow_list; do
  "$adb" shell device_config delete on_device_personalization "$setting"
done
"$adb" shell device_config set_sync_disabled_for_tests none
echo "The phone's settings are its own again."
