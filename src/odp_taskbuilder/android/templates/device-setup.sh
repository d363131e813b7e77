#!/bin/sh
# Readies a test phone for federated learning: checks its module, then turns the features on. device-undo.sh takes that back.
# ADB names another adb; ANDROID_SERIAL says which phone.
set -eu
adb=${ADB:-adb}
module=com.google.android.ondevicepersonalization
required={{min_client_version}}

found=$("$adb" shell pm list packages --apex-only --show-versioncode | tr -d '\r' | sed -n "s/^package:$module versionCode:\([0-9][0-9]*\).*/\1/p")
if [ -z "$found" ]; then
  echo "The phone has no module $module: it cannot train." >&2
  echo "Modules come by Settings > Security & privacy > Updates > Google Play system update." >&2
  exit 1
fi
if [ "$found" -lt "$required" ]; then
  echo "The phone's module $module has version $found; the tasks need $required: they would never be offered to it." >&2
  echo "Update it by Settings > Security & privacy > Updates > Google Play system update." >&2
  exit 1
fi

put() {
  "$adb" shell device_config put on_device_personalization "$1" "$2"
}
"$adb" shell device_config set_sync_disabled_for_tests persistent
put global_kill_switch false
put federated_compute_kill_switch false
put enable_ondevicepersonalization_apis true
put enable_personalization_status_override true
put personalization_status_override_value true
# The phone's shell takes the inner quotes off.
put caller_app_allow_list '"*"'
put isolated_service_allow_list '"*"'
echo "The phone's module $module has version $found, and the tasks need $required. Its features are on."
