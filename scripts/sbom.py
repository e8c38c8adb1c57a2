"""Print a CycloneDX 1.5 bill of materials of the packages installed beside this interpreter."""

import json
import sys
from importlib.metadata import Distribution, distributions


def component(package: Distribution) -> dict[str, object]:
    """One package, as CycloneDX has it."""
    name, version = package.metadata["Name"], package.version
    found: dict[str, object] = {"type": "library", "name": name, "version": version}
    found["purl"] = f"pkg:pypi/{name.lower().replace('_', '-')}@{version}"
    found["bom-ref"] = found["purl"]
    licence = package.metadata.get("License-Expression")
    if licence:
        return found | {"licenses": [{"expression": licence}]}
    classified = [
        c.rsplit(" :: ", 1)[-1] for c in package.metadata.get_all("Classifier", []) if c.startswith("License")
    ]
    return found | ({"licenses": [{"license": {"name": each}} for each in classified]} if classified else {})


def main() -> None:
    """Write the bill to standard output, the packages by name."""
    packages = {package.metadata["Name"].lower(): package for package in distributions()}
    own = packages.pop("perfusion-node", None)
    bill: dict[str, object] = {"bomFormat": "CycloneDX", "specVersion": "1.5", "version": 1}
    if own:
        bill["metadata"] = {"component": component(own) | {"type": "application"}}
    bill["components"] = [component(packages[name]) for name in sorted(packages)]
    json.dump(bill, sys.stdout, indent=1)


if __name__ == "__main__":
    main()
