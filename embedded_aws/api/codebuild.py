"""CodeBuild: projects, and builds that run here.

Source: https://docs.aws.amazon.com/codebuild/latest/APIReference/API_Operations.html
"""

from __future__ import annotations

import json
from typing import Any

from moto.codebuild.responses import CodeBuildResponse
from moto.core.responses import ActionResult, EmptyResult

from ..codebuild.builds import RUNNING, Build
from ..context import WithContext
from ..errors import AwsError

STARTED_WITH = {"projectName", "environmentVariablesOverride"}


class CodeBuild(WithContext, CodeBuildResponse):
    """The operations on projects and builds that are played; the others are moto's."""

    @property
    def _asked(self) -> dict[str, Any]:
        return dict(json.loads(self.body))

    def create_project(self) -> ActionResult:
        """A project by its name, which must be new."""
        project = self._asked
        if (self.region, project["name"]) in self.context.projects:
            raise AwsError("ResourceAlreadyExistsException", f"Project already exists: {project['name']}")
        self.context.projects[self.region, project["name"]] = project
        return ActionResult({"project": project})

    def update_project(self) -> ActionResult:
        """What is given replaces what was."""
        self._project(self._asked["name"]).update(self._asked)
        return ActionResult({"project": self._project(self._asked["name"])})

    def delete_project(self) -> EmptyResult:
        """Also where there is none."""
        self.context.projects.pop((self.region, self._asked["name"]), None)
        return EmptyResult()

    def batch_get_projects(self) -> ActionResult:
        """Those that are there; the others by their names."""
        names, known = self._asked["names"], self.context.projects
        found = [known[self.region, one] for one in names if (self.region, one) in known]
        missing = [one for one in names if (self.region, one) not in known]
        return ActionResult({"projects": found, "projectsNotFound": missing})

    def start_build(self) -> ActionResult:
        """Overrides other than of variables are refused."""
        asked = self._asked
        if asked.keys() - STARTED_WITH:
            raise AwsError("InvalidInputException", f"not honoured here: {', '.join(asked.keys() - STARTED_WITH)}")
        given = {one["name"]: one["value"] for one in asked.get("environmentVariablesOverride", ())}
        build = Build(self.host, self.region, self._project(asked["projectName"]), given)
        self.context.builds[self.region, build.id] = build
        build.start()
        return ActionResult({"build": build.described()})

    def batch_get_builds(self) -> ActionResult:
        """Those that are there; the others by their ids."""
        asked, known = self._asked["ids"], self.context.builds
        found = [known[self.region, one] for one in asked if (self.region, one) in known]
        missing = [one for one in asked if (self.region, one) not in known]
        return ActionResult({"builds": [build.described() for build in found], "buildsNotFound": missing})

    def stop_build(self) -> ActionResult:
        """Ends one that runs."""
        build = self.context.builds.get((self.region, self._asked["id"]))
        if build is None:
            raise AwsError("ResourceNotFoundException", f"Build {self._asked['id']} does not exist")
        if build.status == RUNNING:
            build.stop()
        return ActionResult({"build": build.described()})

    def _project(self, name: str) -> dict[str, Any]:
        found = self.context.projects.get((self.region, name))
        if found is None:
            raise AwsError("ResourceNotFoundException", f"Project cannot be found: {name}")
        return found
