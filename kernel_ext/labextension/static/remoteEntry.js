// Colours a %%dockerfile cell as a Dockerfile, in JupyterLab and Notebook 7.
//
// This is a module federation container written by hand: JupyterLab loads the script, calls init() with the
// modules that it shares, and get() for the plugin. There is nothing to compile, so there is no Node in the
// build and what is installed is what is read here. JupyterLab brings the colours itself: a cell only has to say
// that its text is text/x-dockerfile.

(() => {
  "use strict";

  const NAME = "bknb-lab";
  const MAGIC = /^\s*%%dockerfile\b/;
  const DOCKERFILE = "text/x-dockerfile";
  let shared = {};

  // The newest version of a module that the page shares.
  async function load(name) {
    const versions = shared[name] || {};
    const newest = Object.keys(versions).sort((a, b) => a.localeCompare(b, undefined, { numeric: true })).pop();
    if (newest === undefined) throw new Error(`${NAME}: the page shares no ${name}`);
    return (await versions[newest].get())();
  }

  // Keeps the type of every code cell of a notebook right, also when a kernel's answer sets it anew.
  function watch(notebook) {
    const seen = new WeakSet();
    const ours = new WeakSet();

    const look = (cell) => {
      const wanted = MAGIC.test(cell.sharedModel.getSource().slice(0, 200));
      if (wanted && cell.mimeType !== DOCKERFILE) {
        ours.add(cell);
        cell.mimeType = DOCKERFILE;
      } else if (!wanted && ours.has(cell)) {
        ours.delete(cell);
        cell.mimeType = notebook.codeMimetype;
      }
    };

    const meet = () => {
      if (!notebook.model) return;
      for (const cell of notebook.model.cells) {
        if (cell.type !== "code" || seen.has(cell)) continue;
        seen.add(cell);
        cell.contentChanged.connect(look);
        cell.mimeTypeChanged.connect(look);
        look(cell);
      }
    };

    const follow = () => {
      if (!notebook.model) return;
      notebook.model.cells.changed.connect(meet);
      meet();
    };

    notebook.modelChanged.connect(follow);
    follow();
  }

  async function plugin() {
    const { INotebookTracker } = await load("@jupyterlab/notebook");
    return {
      id: `${NAME}:highlight`,
      description: "Colours %%dockerfile cells as Dockerfiles.",
      autoStart: true,
      requires: [INotebookTracker],
      activate: (_app, tracker) => {
        tracker.widgetAdded.connect((_tracker, panel) => watch(panel.content));
        tracker.forEach((panel) => watch(panel.content));
      },
    };
  }

  window._JUPYTERLAB = window._JUPYTERLAB || {};
  window._JUPYTERLAB[NAME] = {
    init: (scope) => {
      shared = scope;
    },
    get: async (module) => {
      if (module !== "./extension") throw new Error(`${NAME}: no module ${module}`);
      const found = await plugin();
      return () => ({ __esModule: true, default: found });
    },
  };
})();
