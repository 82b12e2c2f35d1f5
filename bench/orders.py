"""Realistic events, the same in every run: orders of a shop, some 2 KB each on the wire."""

from __future__ import annotations

import random
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

from handler.events import entry
from handler.messages import Event

START = 1_780_000_000
_FIRST = ("Ada", "Béla", "Chiara", "Dilan", "Emre", "Fátima", "Grete", "Hugo", "Ines", "Jürgen", "Kim", "Léa")
_LAST = ("Almeida", "Bauer", "Costa", "Dupont", "Eriksson", "Fischer", "García", "Hansen", "Ivanova", "Jensen")
_CITIES = (("Berlin", "10115", "DE"), ("Paris", "75011", "FR"), ("Austin", "78701", "US"), ("Kraków", "31-001", "PL"))
_GOODS = ("Merino crew neck", "Linen shirt", "Trail running shoe", "Enamel mug", "Canvas tote", "Wool blanket")
_COLOURS = ("navy", "ochre", "forest", "off-white", "charcoal")


def draft(number: int) -> entry.Draft:
    """Return order ``number``: one to five items, an address, a customer of her own."""
    chance = random.Random(number)  # noqa: S311 (made-up orders)
    first, last = chance.choice(_FIRST), chance.choice(_LAST)
    city, code, country = chance.choice(_CITIES)
    items = [_item(chance) for _ in range(chance.randint(1, 5))]
    total = sum((item["RowTotal"] for item in items), Decimal(0))
    return entry.Draft(
        profile={
            "email": f"customer.{number}@mail{number % 7}.example",
            "first_name": first,
            "last_name": last,
            "location": {
                "address1": f"{chance.randint(1, 180)} Harbour Street",
                "city": city,
                "zip": code,
                "country": country,
            },
            "properties": {"Shopify Customer ID": str(7_000_000_000 + number), "Accepts Marketing": number % 3 > 0},
        },
        metric="Placed Order",
        unique_id=f"shopify:placed-order:{5_000_000_000 + number}",
        time=START + number,
        service="Shopify",
        value=total,
        currency="EUR",
        properties={
            "OrderId": str(5_000_000_000 + number),
            "OrderName": f"#{number + 1000}",
            "Subtotal": total,
            "Shipping": Decimal("4.90"),
            "Tax": (total * Decimal("0.19")).quantize(Decimal("0.01")),
            "DiscountCodes": ["WELCOME10"] if number % 4 == 0 else [],
            "ItemNames": [item["ProductName"] for item in items],
            "Collections": ["Autumn", "Essentials"],
            "PaymentMethod": "shopify_payments",
            "FulfillmentStatus": "unfulfilled",
            "LandingSite": f"/collections/autumn?utm_source=newsletter&utm_campaign=week{number % 52}",
            "Currency": "EUR",
            "Items": items,
        },
    )


def _item(chance: random.Random) -> dict[str, Any]:
    name, colour, quantity = chance.choice(_GOODS), chance.choice(_COLOURS), chance.randint(1, 3)
    price = Decimal(chance.randint(900, 18_000)) / 100
    version = 1_700_000_000 + chance.randint(0, 80_000_000)
    slug = name.lower().replace(" ", "-")
    return {
        "ProductID": str(8_000_000_000 + chance.randint(0, 5_000)),
        "VariantID": str(44_000_000_000_000 + chance.randint(0, 50_000)),
        "SKU": f"{slug[:4].upper()}-{chance.randint(100, 999)}-{colour[:3].upper()}",
        "ProductName": f"{name}, {colour}",
        "Brand": "Northquay",
        "Quantity": quantity,
        "ItemPrice": price,
        "RowTotal": price * quantity,
        "ProductURL": f"https://northquay.example/products/{slug}?variant={colour}",
        "ImageURL": f"https://cdn.northquay.example/images/{slug}/{colour}-1200x1200.jpg?v={version}",
    }


def events(count: int, *, first: int = 0) -> Iterator[Event]:
    """Yield ``count`` orders as the door would queue them."""
    for number in range(first, first + count):
        event, _ = entry.build(draft(number))
        yield event
