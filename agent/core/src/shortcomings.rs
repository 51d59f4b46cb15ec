//! What is asked of a model that it was not made for.

use outpost_runtime::Capabilities;
use outpost_runtime::capabilities::Names;

use crate::config::{Config, Faults, written_tools};
use crate::event::Task;
use crate::toolset::{BOARD_TOOLS, bundled_tools};

/// How to get around it.
const REMEDY: &str =
    "use a model that can, or set model.capabilities = \"any\" to try it all the same";

/// A task that the model was not made for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the model was not made for task {task}; it states: {stated}. Use a model that can, or set model.capabilities = \"any\" \
     (--capabilities any) to try it all the same"
)]
pub struct Incapable {
    task: String,
    stated: String,
}

/// Checks that a model was made for a task.
///
/// # Errors
/// If it was not.
pub fn check_task(task: Task, capabilities: &Capabilities) -> Result<(), Incapable> {
    let can = match task {
        Task::Call => capabilities.tools.include_some(),
        Task::Chat => capabilities.chat,
        _ => capabilities.tasks.include(&task.name()),
    };
    if can {
        return Ok(());
    }
    Err(Incapable { task: task.name(), stated: summary(capabilities) })
}

/// A statement of capabilities in a line.
pub fn summary(Capabilities { tools, tasks, chat, languages, .. }: &Capabilities) -> String {
    let chat = if *chat { "chat" } else { "no chat" };
    format!("tools {tools}; tasks {tasks}; {chat}; languages {languages}")
}

/// Configured tools that the model was not made for.
pub fn tools_beyond(config: &Config, capabilities: &Capabilities) -> Vec<String> {
    let bundled = bundled_tools().into_iter().map(|tool| tool.name);
    let board = config.firmware.port.iter().flat_map(|_| BOARD_TOOLS.map(str::to_owned));
    let wanted = |name: &String| {
        config.agent.tools.as_ref().is_none_or(|wanted| wanted.contains(name))
            && !capabilities.tools.include(name)
    };
    let mut beyond: Vec<String> =
        bundled.chain(board).chain(written_tools(config)).filter(wanted).collect();
    let others = config.tools.mqtt.is_some() || !config.mcp.is_empty();
    if others && capabilities.tools != Names::Any {
        beyond.push("tools of other programs and servers that it does not name".to_owned());
    }
    beyond
}

/// What of a configuration the model was not made for. It is warned of, not refused.
pub fn of_config(config: &Config, capabilities: &Capabilities) -> Faults {
    let mut faults = Faults::default();
    let can = |task: Task| check_task(task, capabilities).is_ok();
    if !can(Task::Transcribe) {
        if config.agent.transcribe {
            let remedy = format!("the model was not made to transcribe: {REMEDY}");
            faults.add("agent.transcribe", true, remedy);
        }
        if let Some(phrase) = &config.microphone.wake.phrase {
            let remedy = format!("the model was not made to transcribe what is said: {REMEDY}");
            faults.add("microphone.wake.phrase", format!("{phrase:?}"), remedy);
        }
    }
    let has_camera = config.camera.device.is_some() || config.camera.path.is_some();
    if has_camera && config.camera.watch && !can(Task::Ocr) {
        let remedy = format!("the model was not made to read pictures: {REMEDY}");
        faults.add("camera.watch", true, remedy);
    }
    if !can(Task::Chat) {
        for (index, rule) in config.watch.iter().enumerate() {
            let Some(question) = &rule.ask else { continue };
            let remedy = format!(
                "never asked: the model was not made to answer questions; watch for a text instead, or {REMEDY}"
            );
            faults.add(format!("watch[{index}].ask"), format!("{question:?}"), remedy);
        }
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    fn narrow() -> Capabilities {
        let tools = Names::Only(vec!["set_light".into()]);
        let tasks = Names::Only(vec!["ocr".into()]);
        Capabilities { tools, tasks, chat: false, ..Capabilities::default() }
    }

    #[test]
    fn a_task_beyond_what_the_model_states_is_refused_with_a_remedy() {
        for task in [Task::Call, Task::Ocr] {
            assert_eq!(check_task(task, &narrow()), Ok(()));
        }
        for task in [Task::Chat, Task::Translate, Task::Transcribe] {
            let fault = check_task(task, &narrow()).unwrap_err().to_string();
            assert!(
                fault.contains(&task.name()) && fault.contains("--capabilities any"),
                "{fault}"
            );
            assert_eq!(check_task(task, &Capabilities::default()), Ok(()));
        }
    }

    #[test]
    fn settings_beyond_what_the_model_states_are_named() {
        let text = "[agent]\ntranscribe = true\n[camera]\npath = 'signs'\n\
                    [[watch]]\nname = 'exit'\ncontains = 'EXIT'\n[[watch]]\nname = 'gate'\nask = 'Is the gate open?'\n";
        let config = Config::parse(text, "test.toml").unwrap();
        let told = of_config(&config, &narrow()).to_string();
        assert!(told.contains("agent.transcribe = true"), "{told}");
        assert!(told.contains("watch[1].ask = \"Is the gate open?\": never asked"), "{told}");
        assert_eq!(told.lines().count(), 2, "{told}");
        assert!(of_config(&config, &Capabilities::default()).is_empty());
    }
}
