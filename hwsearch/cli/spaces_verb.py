"""``hwsearch spaces``: the search spaces that a name reaches."""

import click


@click.command(name="spaces")
def command() -> None:
    """List the search spaces: input sizes, pruning ratios, trials, backbones."""
    from hwsearch.cli.view import print_table
    from hwsearch.space.search_space import list_spaces, load_space

    spaces = {name: load_space(name) for name in list_spaces()}
    print_table(
        "search spaces",
        ("space", "input px", "pruning ratios", "trials", "backbones"),
        [
            (
                name,
                " ".join(str(px) for px in space.input_px),
                f"0 to {max(space.pruning.ratios):g}",
                str(space.trials),
                ", ".join(backbone.name for backbone in space.backbones),
            )
            for name, space in spaces.items()
        ],
    )
