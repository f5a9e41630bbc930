"""``hwsearch spaces``: the search spaces that a name reaches."""

import click


@click.command(name="spaces")
def command() -> None:
    """List the search spaces: backbones, input sizes, pruning, where the file is."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    from hwsearch.space.search_space import list_spaces, load_space

    table = Table(box=box.SIMPLE_HEAD, title="search spaces", title_justify="left")
    for header in ("space", "input px", "pruning ratios", "trials", "backbones"):
        table.add_column(header)
    for name in list_spaces():
        space = load_space(name)
        table.add_row(
            name,
            " ".join(str(px) for px in space.input_px),
            f"0 to {max(space.pruning.ratios):g}",
            str(space.trials),
            ", ".join(backbone.name for backbone in space.backbones),
        )
    Console().print(table)
