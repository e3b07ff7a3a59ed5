"""`rowhouse new`."""
import typer
app = typer.Typer()
