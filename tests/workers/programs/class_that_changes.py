"""A class that a program changes while its objects travel stays what it is in the program."""

from dataclasses import dataclass

from pipekit import apply, pipeline, prefetch, processes


@dataclass
class Image:
    name: int
    seen = 0

    def same(self):
        return self


same = Image.same
with pipeline(map(Image, range(20)), apply(Image.same, workers=processes(1, ahead=2)), prefetch()) as images:
    for image in images:
        assert type(image) is Image
        Image.seen += 1
print(image, Image.seen, Image.same is same)  # noqa: T201
