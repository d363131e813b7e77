"""Manifest, settings and downloads, checked stricter than phones do: those log what they do not know, and go on."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import re
from collections.abc import Iterable, Sequence
from typing import Optional, Union

from odp_taskbuilder import errors
from odp_taskbuilder.android import xml_source
from odp_taskbuilder.android.app import url_problem
from odp_taskbuilder.android.download_rules import check_download
from odp_taskbuilder.android.names import KEYWORDS
from odp_taskbuilder.android.problems import FileProblem, Places, meant, plain
from odp_taskbuilder.android.xml_source import Element

PROPERTY = "android.ondevicepersonalization.ON_DEVICE_PERSONALIZATION_CONFIG"
_ANDROID = "http://schemas.android.com/apk/res/android"
_MAX_BYTES = 64 << 20
_SETTINGS_ROOT, _MANIFEST_ROOT = "on-device-personalization", "manifest"
_SERVER_SETTINGS = ("download-settings", "federated-compute-settings")
_CLASS = re.compile(r"[A-Za-z][A-Za-z0-9_]*(\.[A-Za-z][A-Za-z0-9_]*)*\.[A-Za-z_][A-Za-z0-9_]*")
# Elements of a manifest (developer.android.com/guide/topics/manifest).
_MANIFEST_TAGS = frozenset(
    """action activity activity-alias adopt-permissions application attribution category compatible-screens data
    grant-uri-permission instrumentation intent intent-filter layout manifest meta-data package path-permission permission
    permission-group permission-tree profileable property provider queries receiver screen service supports-gl-texture
    supports-screens uri-relative-filter-group uses-configuration uses-feature uses-library uses-native-library uses-permission
    uses-permission-sdk-23 uses-sdk uses-sdk-library""".split()
)
_ATTRIBUTES = {
    "property": frozenset({"name", "resource", "value"}),
    "service": frozenset(
        """allowSharedIsolatedProcess banner description directBootAware enabled exported externalService foregroundServiceType
        icon isolatedProcess label logo name permission process roundIcon singleUser splitName stopWithTask useAppZygote
        visibleToInstantApps""".split()
    ),
}


@dataclasses.dataclass(frozen=True)
class _Service:
    """A service as a file names it."""

    name: str
    element: Element
    places: Places


def check_files(paths: Sequence[Union[str, os.PathLike]], *, last_sync_token: Optional[int] = None) -> list[FileProblem]:
    """Looks at files, and at whether manifest and settings among them fit each other.

    Args:
      last_sync_token: of the download that phones have.

    Raises:
      StorageError: a file cannot be read.
    """
    read = [_read(pathlib.Path(path)) for path in paths]
    settings: list[tuple[Places, list[_Service]]] = []
    manifests: list[tuple[Places, tuple[list[_Service], Optional[Element]]]] = []
    for places in read:
        if places.problems:
            continue
        text = places.text.lstrip()
        if places.file.endswith(".json") or text[:1] in ("{", "["):
            check_download(places, last_sync_token)
            continue
        root = xml_source.parse(places)
        if root is None:
            continue
        roots = (_SETTINGS_ROOT, _MANIFEST_ROOT)
        kind = root.tag if root.tag in roots else meant(root.tag, roots)
        if root.tag != kind:
            likely = f"Did you mean {kind}?" if kind else f"Expected {' or '.join(roots)}."
            places.add(root.offset, f"the root {root.tag!r} is neither that of a manifest nor that of settings", likely)
        if kind == _SETTINGS_ROOT:
            settings.append((places, _check_settings(places, root)))
        elif kind == _MANIFEST_ROOT:
            manifests.append((places, _check_manifest(places, root)))
    if len(settings) == len(manifests) == 1:
        (named_in, named), (declared_in, (declared, prop)) = settings[0], manifests[0]
        _check_together(named_in, named, declared_in, declared, prop)
    return [problem for places in read for problem in sorted(places.problems, key=lambda each: (each.line, each.column))]


def _read(path: pathlib.Path) -> Places:
    try:
        with open(path, "rb") as file:
            content = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise errors.StorageError(f"Cannot read {path}: {error.strerror}.") from error
    try:
        places = Places(str(path), content.decode("utf-8-sig").replace("\r\n", "\n"))
    except UnicodeDecodeError as error:
        places = Places(str(path), "")
        places.add(0, f"not UTF-8: {error.reason} at byte {error.start}", "Save it as UTF-8.")
    if len(content) > _MAX_BYTES:
        places.add(0, f"the file has more than {_MAX_BYTES:,} bytes", "Make it smaller.")
    return places


def _check_settings(places: Places, root: Element) -> list[_Service]:
    _check_attributes(places, root, ())
    _check_children(places, root, ("service",))
    services: list[_Service] = []
    for service in root.children:
        if plain(service.tag) != "service" and meant(service.tag, ("service",)) is None:
            continue
        _check_attributes(places, service, ("name",))
        name = service.attributes.get("name", "")
        keyword = next((part for part in name.split(".") if part in KEYWORDS), None)
        if name and not _CLASS.fullmatch(name):
            places.add(
                service.place_of("name"), f"{name!r} is no class with its package", "Write it as com.example.app.Service."
            )
        elif keyword is not None:
            places.add(service.place_of("name"), f"{name!r} is no class: {keyword!r} is a keyword", "Name the class as the sources do.")
        if any(name == other.name for other in services):
            places.add(service.place_of("name"), f"the service {name!r} stood before", "Remove one.")
        services.append(_Service(name, service, places))
        _check_children(places, service, _SERVER_SETTINGS)
        for tag in _SERVER_SETTINGS:
            for again in [child for child in service.children if child.tag == tag][1:]:
                places.add(again.offset, f"{tag} stood before", "Remove one.")
        for child in service.children:
            if child.tag in _SERVER_SETTINGS or meant(child.tag, _SERVER_SETTINGS):
                _check_attributes(places, child, ("url",))
                _check_children(places, child, ())
                if (url := child.attributes.get("url")) is not None and (problem := url_problem(url)):
                    places.add(child.place_of("url"), f"the URL {url!r} will not do: {problem}", "Write an https:// URL.")
        if not any(meant(child.tag, _SERVER_SETTINGS) == "federated-compute-settings" for child in service.children):
            places.add(
                service.offset,
                "the service has no federated-compute-settings: it never trains",
                'Add <federated-compute-settings url="https://..." />.',
            )
    if not services:
        places.add(root.offset, "there is no service", 'Add <service name="com.example.app.Service">.')
    return services


def _check_attributes(places: Places, element: Element, known: Sequence[str]) -> None:
    """Attributes of settings: those that are known, all of which must be there."""
    for name in element.attributes:
        if name in known or name.startswith("xmlns:"):
            continue
        likely = meant(name.rpartition(":")[2], known)
        fix = (
            f"Write {likely!r}, without a prefix."
            if likely
            else f"Remove it; {element.tag} has {', '.join(known) or 'no attribute'}."
        )
        places.add(element.place_of(name), f"{element.tag} has no attribute {name!r}, and the phone skips it", fix)
    for name in known:
        if not element.attributes.get(name):
            places.add(element.place_of(name), f"{element.tag} has no {name}", f'Add {name}="...".')


def _check_children(places: Places, element: Element, known: Sequence[str]) -> None:
    for child in element.children:
        if child.tag not in known:
            likely = meant(child.tag, known)
            fix = f"Did you mean {likely!r}?" if likely else f"Remove it; {element.tag} holds {', '.join(known) or 'nothing'}."
            places.add(child.offset, f"{element.tag} has no element {child.tag!r}, and the phone skips it", fix)
    if element.text_offset is not None:
        places.add(element.text_offset, f"{element.tag} holds text, which the phone skips", "Remove it.")


def _check_manifest(places: Places, root: Element) -> tuple[list[_Service], Optional[Element]]:
    """The services, and the property that names the settings."""
    declared = {name: value for name, value in root.attributes.items() if name.startswith("xmlns:")}
    if declared.get("xmlns:android") != _ANDROID:
        places.add(
            root.place_of("xmlns:android"), "the prefix android is not that of Android", f'Write xmlns:android="{_ANDROID}".'
        )
    elements = list(_all(root))
    for element in elements:
        if element.tag not in _MANIFEST_TAGS and ":" not in element.tag and element is not root:
            likely = meant(element.tag, _MANIFEST_TAGS)
            places.add(
                element.offset,
                f"a manifest has no element {element.tag!r}",
                f"Did you mean {likely!r}?" if likely else "Remove it, or mend its name.",
            )
    prefix = root.attributes.get("package", "")
    services, properties = [], []
    for element in elements:
        tag = element.tag if element.tag in _MANIFEST_TAGS else meant(element.tag, _ATTRIBUTES)
        if tag not in _ATTRIBUTES:
            continue
        name = element.attributes.get("android:name", "")
        is_ours = tag == "property" and (plain(name) == plain(PROPERTY) or meant(name, (PROPERTY,)) is not None)
        _check_android_attributes(places, element, _ATTRIBUTES[tag])
        if tag == "service":
            services.append(_Service(prefix + name if name.startswith(".") else name, element, places))
        elif is_ours or not name:
            properties.append(element)
            _check_property(places, element, name)
    if not properties:
        places.add(root.offset, f"no property is named {PROPERTY}: the phone finds no settings", "Add it to the application.")
    for again in properties[1:]:
        places.add(again.offset, "the property stood before", "Remove one.")
    isolated = [service for service in services if service.element.attributes.get("android:isolatedProcess") == "true"]
    if not isolated:
        at = services[0].element.offset if services else root.offset
        places.add(
            at, "no service has android:isolatedProcess: the phone binds to no other", 'Add android:isolatedProcess="true".'
        )
    for service in isolated:
        if service.element.attributes.get("android:exported") != "true":
            places.add(
                service.element.place_of("android:exported"),
                f"the service {service.name!r} is not exported: the phone cannot bind to it",
                'Write android:exported="true".',
            )
        if service.element.parent is None or service.element.parent.tag != "application":
            places.add(service.element.offset, "the service is not inside application", "Move it there.")
    return services, properties[0] if properties else None


def _check_property(places: Places, element: Element, name: str) -> None:
    if name != PROPERTY:
        places.add(element.place_of("android:name"), f"the property {name!r} is unknown to the phone", f"Write {PROPERTY}.")
    resource = element.attributes.get("android:resource")
    if resource is None:
        places.add(element.offset, "the property names no resource", 'Add android:resource="@xml/odp_settings".')
    elif not re.fullmatch(r"@xml/[A-Za-z][A-Za-z0-9_]*", resource):
        places.add(
            element.place_of("android:resource"), f"{resource!r} is no XML resource", "Write @xml/NAME, without the suffix."
        )
    if element.parent is None or element.parent.tag != "application":
        places.add(element.offset, "the property is not inside application", "Move it there.")


def _check_android_attributes(places: Places, element: Element, known: Iterable[str]) -> None:
    for name in element.attributes:
        prefix, _, local = name.rpartition(":")
        if prefix == "android" and local in known or prefix in ("tools", "xmlns"):
            continue
        likely = meant(local, known)
        fix = f"Write android:{likely}." if likely else "Remove it, or mend its name."
        places.add(element.place_of(name), f"{element.tag} has no attribute {name!r}", fix)


def _check_together(
    settings: Places, named: list[_Service], manifest: Places, declared: list[_Service], prop: Optional[Element]
) -> None:
    for service in named:
        found = next((each for each in declared if each.name == service.name), None)
        # A name that begins with a dot is completed by the build where the manifest names no package.
        found = found or next(
            (each for each in declared if each.name.startswith(".") and service.name.endswith(each.name)), None
        )
        if found is None:
            likely = meant(service.name, [each.name for each in declared])
            settings.add(
                service.element.place_of("name"),
                f"{manifest.file} declares no service {service.name!r}",
                f"Did you mean {likely!r}?" if likely else "Declare it there.",
            )
        elif found.element.attributes.get("android:isolatedProcess") != "true":
            manifest.add(
                found.element.place_of("android:isolatedProcess"),
                f"the service {service.name!r} does not run in an isolated process: the phone does not bind to it",
                'Write android:isolatedProcess="true".',
            )
    resource = prop.attributes.get("android:resource", "") if prop is not None else ""
    stem = pathlib.Path(settings.file).stem
    if prop is not None and resource.startswith("@xml/") and resource != f"@xml/{stem}":
        manifest.add(
            prop.place_of("android:resource"),
            f"{resource!r} does not name {settings.file}",
            f"Write @xml/{stem}, or rename the file.",
        )


def _all(element: Element) -> Iterable[Element]:
    yield element
    for child in element.children:
        yield from _all(child)
